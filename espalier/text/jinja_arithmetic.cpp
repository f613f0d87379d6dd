// Operators between two values as Python computes them: integers that do not wrap, division that
// rounds down, joining and repeating of texts and lists.
#include <algorithm>
#include <cmath>
#include <limits>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"

namespace espalier::text::jinja {
namespace {

bool checked(bool overflowed, std::string_view op) {
  if (overflowed)
    throw Error(ErrorKind::kUnsupported, "chat template", format("integer overflow in '{}'", op));
  return true;
}

std::int64_t integer_power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (std::int64_t i = 0; i < exponent; ++i) {
    checked(__builtin_mul_overflow(result, base, &result), "**");
    if (base == 0 || base == 1) break;
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  }
  return result;
}

Value integer_arithmetic(std::string_view op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (op == "+") checked(__builtin_add_overflow(a, b, &result), op);
  if (op == "-") checked(__builtin_sub_overflow(a, b, &result), op);
  if (op == "*") checked(__builtin_mul_overflow(a, b, &result), op);
  if (op == "**") result = integer_power(a, b);
  if (op == "//" || op == "%") {
    checked(a == std::numeric_limits<std::int64_t>::min() && b == -1, op);
    const std::int64_t remainder = a % b;
    const bool adjust =
        remainder != 0 && (remainder < 0) != (b < 0);  // Python rounds towards minus infinity
    result = op == "//" ? a / b - (adjust ? 1 : 0) : remainder + (adjust ? b : 0);
  }
  return Value(result);
}

Value real_arithmetic(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  if (op == "**") return Value(std::pow(a, b));
  const double remainder = std::fmod(a, b);
  return Value(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

}  // namespace

Value Evaluator::binary(std::string_view op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const bool divides = op == "/" || op == "//" || op == "%";
    if (divides && b.real() == 0) type_error("division by zero");
    const bool real = a.is_float() || b.is_float() || op == "/" || (op == "**" && b.integer() < 0);
    return real ? real_arithmetic(op, a.real(), b.real())
                : integer_arithmetic(op, a.integer(), b.integer());
  }
  if (op == "+" && a.is_text() && b.is_text()) {
    spend(a.text().marks.size() + b.text().marks.size(), a.bytes().size() + b.bytes().size());
    MarkedText text = a.text();
    text.append(b.text());
    return Value(std::move(text));
  }
  if (op == "+" && a.is_list() && b.is_list()) {
    spend(2 * (a.items().items.size() + b.items().items.size()));
    std::vector<Value> items = a.items().items;
    items.insert(items.end(), b.items().items.begin(), b.items().items.end());
    return Value::list(std::move(items), a.items().is_tuple);
  }
  if (op == "*" && (a.is_int() || b.is_int()) &&
      (a.is_text() || b.is_text() || a.is_list() || b.is_list())) {
    const Value& what = a.is_int() ? b : a;
    const std::int64_t times = std::max<std::int64_t>(0, a.is_int() ? a.integer() : b.integer());
    const std::size_t unit = what.is_text() ? what.bytes().size() : what.items().items.size();
    if (unit > 0 && static_cast<std::size_t>(times) > max_bytes_ / unit)
      type_error("a repetition is too long");
    MarkedText text;
    std::vector<Value> items;
    what.is_text() ? spend(static_cast<std::size_t>(times) * what.text().marks.size(),
                           static_cast<std::size_t>(times) * unit)
                   : spend(2 * static_cast<std::size_t>(times) * unit);
    if (unit == 0) return what;
    for (std::int64_t i = 0; i < times; ++i) {
      if (what.is_text())
        text.append(what.text());
      else
        items.insert(items.end(), what.items().items.begin(), what.items().items.end());
    }
    return what.is_text() ? Value(std::move(text))
                          : Value::list(std::move(items), what.items().is_tuple);
  }
  if (op == "%" && a.is_text())
    throw Error(ErrorKind::kUnsupported, "chat template", "string formatting with %");
  const Value& bad = a.is_undefined() ? a : b;
  if (bad.is_undefined()) type_error(format("'{}' is undefined", bad.undefined().name));
  type_error(format("'{}' between {} and {}", op, a.type_name(), b.type_name()));
}

}  // namespace espalier::text::jinja
