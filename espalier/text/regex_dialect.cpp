// From Oniguruma's Ruby syntax (what tokenizer.json patterns are written for) to PCRE2.
// Translated: \s \d \w \h and their complements (their Unicode sets differ), long property names,
// script names (PCRE2 would take script extensions), {,n}, {n,m}+ (not possessive in Ruby),
// (?m:...) for dot-matches-newline. Refused: class intersections and nested classes, absent
// operators, sub-expression calls, call-outs, verbs.
#include <array>
#include <cctype>
#include <map>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/regex_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

// Class bodies, without brackets. White_Space lacks U+180E, which PCRE2's \s takes.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kDigit = R"(\p{Nd})";
constexpr std::string_view kHexDigit = "0-9A-Fa-f";

const std::map<std::string, std::string_view, std::less<>>& long_categories() {
  static const std::map<std::string, std::string_view, std::less<>> names = {
      {"letter", "L"},
      {"uppercaseletter", "Lu"},
      {"lowercaseletter", "Ll"},
      {"titlecaseletter", "Lt"},
      {"modifierletter", "Lm"},
      {"otherletter", "Lo"},
      {"mark", "M"},
      {"nonspacingmark", "Mn"},
      {"spacingmark", "Mc"},
      {"enclosingmark", "Me"},
      {"number", "N"},
      {"decimalnumber", "Nd"},
      {"letternumber", "Nl"},
      {"othernumber", "No"},
      {"punctuation", "P"},
      {"connectorpunctuation", "Pc"},
      {"dashpunctuation", "Pd"},
      {"openpunctuation", "Ps"},
      {"closepunctuation", "Pe"},
      {"initialpunctuation", "Pi"},
      {"finalpunctuation", "Pf"},
      {"otherpunctuation", "Po"},
      {"symbol", "S"},
      {"mathsymbol", "Sm"},
      {"currencysymbol", "Sc"},
      {"modifiersymbol", "Sk"},
      {"othersymbol", "So"},
      {"separator", "Z"},
      {"spaceseparator", "Zs"},
      {"lineseparator", "Zl"},
      {"paragraphseparator", "Zp"},
      {"other", "C"},
      {"control", "Cc"},
      {"format", "Cf"},
      {"surrogate", "Cs"},
      {"privateuse", "Co"},
      {"unassigned", "Cn"},
      {"cntrl", "Cc"},
      {"punct", "P"},
      {"digit", "Nd"},
      {"any", "Any"}};
  return names;
}

const std::map<std::string, std::string_view, std::less<>>& binary_properties() {
  static const std::map<std::string, std::string_view, std::less<>> names = {
      {"alphabetic", "Alphabetic"},
      {"alpha", "Alphabetic"},
      {"uppercase", "Uppercase"},
      {"upper", "Uppercase"},
      {"lowercase", "Lowercase"},
      {"lower", "Lowercase"},
      {"emoji", "Emoji"},
      {"emojipresentation", "Emoji_Presentation"},
      {"extendedpictographic", "Extended_Pictographic"},
      {"ideographic", "Ideographic"},
      {"asciihexdigit", "ASCII_Hex_Digit"},
      {"whitespace", "White_Space"},
      {"dash", "Dash"},
      {"ascii", "ASCII"}};
  return names;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (pos_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(ErrorKind::kUnsupported, "regular expression",
                format("\"{}\" uses {} at byte {}", to_valid_utf8(in_), what, pos_));
  }
  char peek(std::size_t ahead = 0) const {
    return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0';
  }
  bool at(std::string_view text) const { return in_.substr(pos_).starts_with(text); }

  void step() {
    const char c = peek();
    switch (c) {
      case '\\':
        atom_ = out_.size();
        escape(false);
        return;
      case '[':
        atom_ = out_.size();
        char_class();
        return;
      case '(':
        open_group();
        return;
      case ')':
        if (!groups_.empty()) {
          atom_ = groups_.back();
          groups_.pop_back();
        }
        break;
      case '{':
        if (interval()) return;
        break;
      default:
        if (c != '*' && c != '+' && c != '?') atom_ = out_.size();
    }
    copy_character();
  }

  void copy_character() {
    const std::size_t length =
        std::min(utf8_length(static_cast<unsigned char>(in_[pos_])), in_.size() - pos_);
    out_ += in_.substr(pos_, length);
    pos_ += length;
  }

  void open_group() {
    if (at("(?~")) refuse("an absent operator");
    if (at("(*")) refuse("a verb");
    if (at("(?C") || at("(?{")) refuse("a call-out");
    if (at("(?R") || at("(?&") || at("(?P>") || at("(?P=")) refuse("a sub-expression call");
    groups_.push_back(out_.size());
    out_ += '(';
    ++pos_;
    if (peek() != '?') {
      return;
    }
    // Option letters: Ruby's m is PCRE2's s. Ruby has no s and no n.
    std::size_t end = pos_ + 1;
    while (end < in_.size() &&
           (std::isalpha(static_cast<unsigned char>(in_[end])) || in_[end] == '-'))
      ++end;
    const bool is_options =
        end > pos_ + 1 && end < in_.size() && (in_[end] == ':' || in_[end] == ')');
    if (!is_options) return;
    out_ += '?';
    for (++pos_; pos_ < end; ++pos_) {
      const char letter = in_[pos_];
      if (letter != 'i' && letter != 'm' && letter != 'x' && letter != '-')
        refuse(format("the option (?{})", std::string(1, letter)));
      out_ += letter == 'm' ? 's' : letter;
    }
  }

  /// {,n} and {n,m}+ ; false when the brace is a literal.
  bool interval() {
    std::size_t end = pos_ + 1;
    while (end < in_.size() &&
           (std::isdigit(static_cast<unsigned char>(in_[end])) || in_[end] == ','))
      ++end;
    if (end == in_.size() || in_[end] != '}' || end == pos_ + 1) return false;
    std::string body(in_.substr(pos_ + 1, end - pos_ - 1));
    if (body == ",") return false;
    if (body.front() == ',') body.insert(0, "0");
    pos_ = end + 1;
    out_ += "{" + body + "}";
    if (peek() == '+') {
      out_.insert(atom_, "(?:");
      out_ += ")+";
      ++pos_;
    }
    return true;
  }

  void set(std::string_view body, bool negated, bool in_class) {
    if (!in_class) {
      out_ += negated ? "[^" : "[";
      out_ += body;
      out_ += ']';
    } else if (!negated) {
      out_ += body;
    } else if (body == kSpace) {
      // A complement inside a class: the gaps between the ranges of White_Space.
      out_ +=
          R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
    } else if (body == kDigit) {
      out_ += R"(\P{Nd})";
    } else {
      refuse("\\W or \\H inside a class");
    }
  }

  void escape(bool in_class) {
    const char kind = peek(1);
    switch (kind) {
      case '\0':
        refuse("a backslash at the end");
      case 's':
        set(kSpace, false, in_class);
        break;
      case 'S':
        set(kSpace, true, in_class);
        break;
      case 'd':
        set(kDigit, false, in_class);
        break;
      case 'D':
        set(kDigit, true, in_class);
        break;
      case 'w':
        set(kWord, false, in_class);
        break;
      case 'W':
        set(kWord, true, in_class);
        break;
      case 'h':
        set(kHexDigit, false, in_class);
        break;
      case 'H':
        set(kHexDigit, true, in_class);
        break;
      case 'p':
      case 'P':
        property();
        return;
      case 'g':
      case 'k':
      case 'K':
      case 'G':
      case 'y':
      case 'Y':
      case 'c':
      case 'C':
      case 'M':
      case 'N':
      case 'O':
      case 'Q':
      case 'E':
        refuse(format("\\{}", std::string(1, kind)));
      case 'u':
        unicode_escape();
        return;
      default:
        out_ += '\\';
        ++pos_;
        copy_character();
        return;
    }
    pos_ += 2;
  }

  void unicode_escape() {
    const auto digits = in_.substr(pos_ + 2, 4);
    if (digits.size() < 4 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("a \\u without four digits");
    out_ += format("\\x{{{}}}", digits);
    pos_ += 6;
  }

  void property() {
    bool negated = peek(1) == 'P';
    if (peek(2) != '{') refuse("a property without braces");
    const std::size_t end = in_.find('}', pos_);
    if (end == std::string_view::npos) refuse("a property without a closing brace");
    std::string_view name = in_.substr(pos_ + 3, end - pos_ - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    std::string folded;
    for (const char c : name) {
      const auto byte = static_cast<unsigned char>(c);
      if (!std::isalnum(byte) && c != '_' && c != ' ' && c != '-' && c != '&')
        refuse(format("the property {{{}}}", to_valid_utf8(name)));
      if (std::isalnum(byte)) folded += static_cast<char>(std::tolower(byte));
    }
    if (folded.empty()) refuse("an empty property name");
    std::string translated;
    if (folded.size() == 1) {
      translated =
          std::string(1, static_cast<char>(std::toupper(static_cast<unsigned char>(folded[0]))));
    } else if (folded.size() == 2) {
      translated = {static_cast<char>(std::toupper(static_cast<unsigned char>(folded[0]))),
                    folded[1]};
    } else if (const auto category = long_categories().find(folded);
               category != long_categories().end()) {
      translated = category->second;
    } else if (const auto binary = binary_properties().find(folded);
               binary != binary_properties().end()) {
      translated = binary->second;
    } else {
      translated = "sc:" + folded;  // scripts by Script, not by Script_Extensions
    }
    out_ += format("\\{}{{{}}}", negated ? "P" : "p", translated);
    pos_ = end + 1;
  }

  void char_class() {
    out_ += '[';
    ++pos_;
    if (peek() == '^') copy_character();
    if (peek() == ']') {  // first in a class it is a literal
      out_ += "\\]";
      ++pos_;
    }
    while (pos_ < in_.size() && peek() != ']') {
      if (at("&&")) refuse("a class intersection (&&)");
      if (at("[:")) {
        const std::size_t end = in_.find(":]", pos_);
        if (end == std::string_view::npos) refuse("an unclosed [: :]");
        out_ += in_.substr(pos_, end + 2 - pos_);
        pos_ = end + 2;
      } else if (peek() == '[') {
        refuse("a class inside a class");
      } else if (peek() == '\\') {
        escape(true);
      } else {
        copy_character();
      }
    }
    if (pos_ == in_.size()) refuse("an unclosed class");
    out_ += ']';
    ++pos_;
  }

  std::string_view in_;
  std::size_t pos_ = 0;
  std::string out_;
  std::size_t atom_ = 0;             // where in out_ the last atom began
  std::vector<std::size_t> groups_;  // where in out_ the open groups began
};

}  // namespace

std::string to_pcre2_dialect(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace espalier::text
