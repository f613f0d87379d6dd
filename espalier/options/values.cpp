// Text <-> value for every field type, independent of the locale, with errors that name the flag
// and what is allowed.
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/options/options.h"

namespace espalier::detail {

namespace {

Error usage(std::string_view flag, std::string_view message) {
  return Error(ErrorKind::kUsage, flag, message);
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 60;
  if (text.size() <= kShown) return format("\"{}\"", text);
  return format("\"{}...\"", text.substr(0, kShown));
}

// from_chars knows no leading plus sign; people type it.
std::string_view without_plus(std::string_view text) {
  return text.size() > 1 && text.front() == '+' && text[1] != '-' && text[1] != '+' ? text.substr(1)
                                                                                    : text;
}

template <class Number>
void check_range(std::string_view flag, const OptionTraits& traits, Number value) {
  const auto number = static_cast<double>(value);
  const bool low = traits.minimum && number < *traits.minimum;
  const bool high = traits.maximum && number > *traits.maximum;
  if (!low && !high) return;
  const std::string bound = print_value(low ? *traits.minimum : *traits.maximum);
  const std::string shown = print_value(value);
  if (traits.minimum && traits.maximum)
    throw usage(flag, format("{} is outside the range {} to {}", shown,
                             print_value(*traits.minimum), print_value(*traits.maximum)))
        .hint(format("the nearest allowed value is {}={}", flag, bound));
  throw usage(flag, format("{} is too {}: at {} {}", shown, low ? "small" : "large",
                           low ? "least" : "most", bound))
      .hint(format("the nearest allowed value is {}={}", flag, bound));
}

void check_choice(std::string_view flag, const OptionTraits& traits, std::string_view value) {
  if (traits.choices.empty()) return;
  std::string list;
  for (const std::string& choice : traits.choices) {
    if (choice == value) return;
    list += (list.empty() ? "" : ", ") + choice;
  }
  const std::string near = nearest(value, traits.choices);
  Error error = usage(flag, format("{} is not one of: {}", quoted(value), list));
  error.hint(near.empty() ? format("choose one, such as {}={}", flag, traits.choices.front())
                          : format("did you mean {}={}?", flag, near));
  throw error;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// A backslash makes the next comma or backslash a letter; before anything else it is one itself.
std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ',' || text[i + 1] == '\\')) {
      parts.back() += text[++i];
    } else if (text[i] == ',') {
      parts.emplace_back();
    } else {
      parts.back() += text[i];
    }
  }
  return parts;
}

}  // namespace

void parse_value(std::string_view flag, std::string_view text, const OptionTraits&, bool& out) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  for (const std::string_view yes : {"true", "on", "yes", "1"})
    if (lower == yes) {
      out = true;
      return;
    }
  for (const std::string_view no : {"false", "off", "no", "0"})
    if (lower == no) {
      out = false;
      return;
    }
  throw usage(flag, format("{} is neither on nor off", quoted(text)))
      .hint(format("write {0}, {0}=off, or --no-{1}", flag,
                   flag.starts_with("--") ? flag.substr(2) : flag));
}

void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 std::int64_t& out) {
  const std::string_view digits = without_plus(text);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::result_out_of_range)
    throw usage(flag, format("{} does not fit into 64 bits", quoted(text)))
        .hint("give a smaller number");
  if (error != std::errc() || end != digits.data() + digits.size())
    throw usage(flag, format("{} is not a whole number", quoted(text)))
        .hint(format("write digits only, such as {}=4", flag));
  check_range(flag, traits, value);
  out = value;
}

void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 double& out) {
  const std::string_view digits = without_plus(text);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::result_out_of_range)
    throw usage(flag, format("{} is too large or too small for a 64-bit number", quoted(text)))
        .hint("give another number");
  if (error != std::errc() || end != digits.data() + digits.size() || !std::isfinite(value))
    throw usage(flag, format("{} is not a number", quoted(text)))
        .hint(format("write a number with a point, such as {}=0.5 or 1e-5", flag));
  check_range(flag, traits, value);
  out = value;
}

void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 std::string& out) {
  if (text.find('\0') != std::string_view::npos)
    throw usage(flag, "the text holds a NUL byte").hint("remove it");
  check_choice(flag, traits, text);
  out = text;
}

void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 std::vector<std::string>& out) {
  if (text.find('\0') != std::string_view::npos)
    throw usage(flag, "the text holds a NUL byte").hint("remove it");
  std::vector<std::string> parts;
  if (!text.empty()) parts = split_list(text);
  for (std::string& part : parts) {
    if (!traits.choices.empty()) part = trimmed(part);
    if (part.empty())
      throw usage(flag, format("{} has an empty element", quoted(text)))
          .hint("separate elements by single commas; \\, is a comma inside one");
    check_choice(flag, traits, part);
  }
  out = std::move(parts);
}

std::string print_value(bool value) { return value ? "true" : "false"; }

std::string print_value(std::int64_t value) { return std::to_string(value); }

std::string print_value(double value) {
  char buffer[64];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, error == std::errc() ? end : buffer);
  // 1e-05 -> 1e-5: the shorter spelling is what people write.
  const std::size_t e = text.find('e');
  if (e != std::string::npos && e + 2 < text.size()) {
    const std::size_t first = text.find_first_not_of('0', e + 2);
    text.erase(e + 2, (first == std::string::npos ? text.size() - 1 : first) - (e + 2));
    if (text[e + 1] == '+') text.erase(e + 1, 1);
  }
  return text;
}

std::string print_value(const std::string& value) { return value; }

std::string print_value(const std::vector<std::string>& value) {
  std::string text;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (i > 0) text += ',';
    for (const char c : value[i]) {
      if (c == ',' || c == '\\') text += '\\';
      text += c;
    }
  }
  return text;
}

}  // namespace espalier::detail
