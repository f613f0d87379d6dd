// The lexer: text between tags, then names, strings, numbers and operators inside them.
#include <algorithm>
#include <array>
#include <cctype>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_lexer_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Line ends as "\n", and without the last one.
std::string normalise_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalise_lines(source)) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) {
      const std::size_t open = find_tag(pos_);
      text_until(open);
      if (open == std::string::npos) break;
      const char kind = source_[open + 1];
      pos_ = open + 2;
      if (pos_ < source_.size() && (source_[pos_] == '-' || source_[pos_] == '+')) ++pos_;
      if (kind == '#') {
        comment();
      } else if (kind == '{') {
        add(TokenKind::kPrintBegin, "{{");
        inside('}', TokenKind::kPrintEnd);
      } else if (!raw()) {
        add(TokenKind::kBlockBegin, "{%");
        inside('%', TokenKind::kBlockEnd);
      }
    }
    add(TokenKind::kEnd, "end of template");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorKind::kInput, format("chat template:{}", line_), what);
  }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  std::size_t find_tag(std::size_t from) const {
    for (std::size_t i = source_.find('{', from); i != std::string::npos;
         i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#'))
        return i;
    }
    return std::string::npos;
  }

  void count_lines(std::size_t begin, std::size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
  }

  /// The text in front of the tag at `open`, stripped as the tag asks.
  void text_until(std::size_t open) {
    const std::size_t end = open == std::string::npos ? source_.size() : open;
    std::string_view text(source_.data() + pos_, end - pos_);
    if (open != std::string::npos) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (sign == '-') {
        while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
      } else if (sign != '+' && source_[open + 1] != '{') {
        text = strip_line_start(text);
      }
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
    count_lines(pos_, end);
  }

  /// lstrip_blocks: a tag's indentation goes when nothing else stands before it on its line.
  std::string_view strip_line_start(std::string_view text) const {
    const std::size_t newline = text.rfind('\n');
    const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    const bool at_line_start =
        newline != std::string_view::npos || pos_ == 0 || source_[pos_ - 1] == '\n';
    const auto tail = text.substr(start);
    return at_line_start && std::all_of(tail.begin(), tail.end(), is_space) ? text.substr(0, start)
                                                                            : text;
  }

  /// Consumes what closes a tag at pos_ (sign and bracket checked by the caller) and the white
  /// space it takes along.
  void close(std::size_t size, char sign, bool trims) {
    const std::size_t begin = pos_;
    pos_ += size;
    if (sign == '-') {
      while (pos_ < source_.size() && is_space(source_[pos_])) ++pos_;
    } else if (trims && sign != '+' && pos_ < source_.size() && source_[pos_] == '\n') {
      ++pos_;
    }
    count_lines(begin, pos_);
  }

  void comment() {
    const std::size_t end = source_.find("#}", pos_);
    if (end == std::string::npos) fail("a comment is not closed");
    const char before = end > pos_ ? source_[end - 1] : '\0';
    count_lines(pos_, end);
    pos_ = end;
    close(2, before == '-' || before == '+' ? before : '\0', true);
  }

  /// {% raw %} ... {% endraw %}; false when the tag at pos_ is another one.
  bool raw() {
    std::size_t at = pos_;
    const auto skip = [&] {
      while (at < source_.size() && is_space(source_[at])) ++at;
    };
    skip();
    if (source_.compare(at, 3, "raw") != 0) return false;
    at += 3;
    skip();
    const bool strips = at < source_.size() && source_[at] == '-';
    if (source_.compare(at + strips, 2, "%}") != 0) return false;
    const std::size_t begin = pos_;
    pos_ = at + strips + 2;
    if (strips) {
      while (pos_ < source_.size() && is_space(source_[pos_])) ++pos_;
    }
    count_lines(begin, pos_);
    for (std::size_t open = source_.find("{%", pos_); open != std::string::npos;
         open = source_.find("{%", open + 2)) {
      at = open + 2;
      if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) ++at;
      skip();
      if (source_.compare(at, 6, "endraw") != 0) continue;
      at += 6;
      skip();
      const char sign =
          at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
      if (source_.compare(at + (sign != '\0'), 2, "%}") != 0) continue;
      text_until(open);
      pos_ = at;
      close(sign != '\0' ? 3 : 2, sign, true);
      return true;
    }
    fail("{% raw %} is not closed");
  }

  /// Tokens up to the closing bracket of the tag.
  void inside(char bracket, TokenKind end_kind) {
    const int begun = line_;
    std::vector<char> open;  // ( [ { inside: a "}}" that closes a dict is not the end
    while (true) {
      while (pos_ < source_.size() && is_space(source_[pos_])) {
        if (source_[pos_] == '\n') ++line_;
        ++pos_;
      }
      if (pos_ >= source_.size()) {
        line_ = begun;
        fail("a tag is not closed");
      }
      const char c = source_[pos_];
      const std::size_t sign = (c == '-' || (c == '+' && bracket == '%')) ? 1 : 0;
      if (open.empty() && source_.compare(pos_ + sign, 2, bracket == '%' ? "%}" : "}}") == 0) {
        add(end_kind, bracket == '%' ? "%}" : "}}");
        close(2 + sign, sign != 0 ? c : '\0', bracket == '%');
        return;
      }
      if (c == '"' || c == '\'') {
        string(c);
      } else if (std::isdigit(static_cast<unsigned char>(c))) {
        number();
      } else if (std::isalpha(static_cast<unsigned char>(c)) || c == '_' ||
                 static_cast<unsigned char>(c) >= 0x80) {
        const std::size_t begin = pos_;
        while (pos_ < source_.size() &&
               (std::isalnum(static_cast<unsigned char>(source_[pos_])) || source_[pos_] == '_' ||
                static_cast<unsigned char>(source_[pos_]) >= 0x80))
          ++pos_;
        add(TokenKind::kName, source_.substr(begin, pos_ - begin));
      } else {
        operator_token(open);
      }
    }
  }

  void operator_token(std::vector<char>& open) {
    static constexpr std::array<std::string_view, 26> kOperators = {
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ",",  ":",  "|",  "(", ")", "[", "]", "{", "}", ";"};
    for (const std::string_view op : kOperators) {
      if (source_.compare(pos_, op.size(), op) != 0) continue;
      const char c = op[0];
      if (op.size() == 1 && (c == '(' || c == '[' || c == '{'))
        open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
      if (op.size() == 1 && (c == ')' || c == ']' || c == '}')) {
        if (open.empty() || open.back() != c) fail(format("'{}' closes nothing", op));
        open.pop_back();
      }
      add(TokenKind::kOperator, std::string(op));
      pos_ += op.size();
      return;
    }
    fail(format("unexpected character '{}'", source_.substr(pos_, 1)));
  }

  void number() {
    const std::size_t begin = pos_;
    const auto digits = [&] {
      while (pos_ < source_.size() &&
             (std::isdigit(static_cast<unsigned char>(source_[pos_])) || source_[pos_] == '_'))
        ++pos_;
    };
    digits();
    bool is_float = false;
    if (pos_ + 1 < source_.size() && source_[pos_] == '.' &&
        std::isdigit(static_cast<unsigned char>(source_[pos_ + 1]))) {
      is_float = true;
      ++pos_;
      digits();
    }
    if (pos_ < source_.size() && (source_[pos_] == 'e' || source_[pos_] == 'E')) {
      std::size_t at = pos_ + 1;
      if (at < source_.size() && (source_[at] == '+' || source_[at] == '-')) ++at;
      if (at < source_.size() && std::isdigit(static_cast<unsigned char>(source_[at]))) {
        is_float = true;
        pos_ = at;
        digits();
      }
    }
    std::string text = source_.substr(begin, pos_ - begin);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, text);
  }

  std::uint32_t hex(std::size_t digits) {
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      ++pos_;
      if (pos_ >= source_.size() || !std::isxdigit(static_cast<unsigned char>(source_[pos_])))
        fail("a string has a broken \\x or \\u escape");
      const char c = source_[pos_];
      code = code * 16 + static_cast<std::uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return code;
  }

  void escape(std::string& value) {
    const char c = source_[pos_];
    const auto simple = std::string_view("abfnrtv\\'\"").find(c);
    if (simple != std::string_view::npos) {
      value += "\a\b\f\n\r\t\v\\'\""[simple];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const std::uint32_t code = hex(c == 'x' ? 2 : c == 'u' ? 4 : 8);
      if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        fail(format("a string holds the invalid character U+{:X}", code));
      utf8_append(value, code);
    } else if (c >= '0' && c <= '7') {
      std::uint32_t code = static_cast<std::uint32_t>(c - '0');
      for (int i = 0; i < 2 && pos_ + 1 < source_.size() && source_[pos_ + 1] >= '0' &&
                      source_[pos_ + 1] <= '7';
           ++i) {
        code = code * 8 + static_cast<std::uint32_t>(source_[++pos_] - '0');
      }
      utf8_append(value, code);
    } else if (c != '\n') {  // a backslash at the end of a line joins lines; others stay
      value += '\\';
      value += c;
    }
    if (c == '\n') ++line_;
    ++pos_;
  }

  void string(char quote) {
    const int begun = line_;
    std::string value;
    ++pos_;
    while (pos_ < source_.size() && source_[pos_] != quote) {
      if (source_[pos_] == '\\' && pos_ + 1 < source_.size()) {
        ++pos_;
        escape(value);
      } else {
        if (source_[pos_] == '\n') ++line_;
        value += source_[pos_++];
      }
    }
    if (pos_ >= source_.size()) {
      line_ = begun;
      fail("a string is not closed");
    }
    ++pos_;
    tokens_.push_back({TokenKind::kString, std::move(value), begun});
  }

  std::string source_;
  std::size_t pos_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace espalier::text::jinja
