// Calls: macros, the global functions (range, namespace, dict, raise_exception), and what a loop
// sees of a value.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {
namespace {

constexpr std::int64_t kMaxRange = 100'000;  // the sandbox of Jinja has the same bound

}  // namespace

std::vector<Value> Evaluator::elements(const Value& value) {
  if (value.is_list()) {
    spend(2 * value.items().items.size());
    return value.items().items;
  }
  std::vector<Value> out;
  if (value.is_dict()) {
    for (const auto& [key, item] : value.entries().entries) out.push_back(key);
  } else if (value.is_text()) {
    const MarkedText& text = value.text();
    for (std::size_t i = 0; i < text.bytes.size();) {
      spend(1 + text.marks.size());
      const std::size_t length = utf8_length(static_cast<unsigned char>(text.bytes[i]));
      out.emplace_back(text.slice(i, i + length));
      i += length;
    }
  } else if (!value.is_undefined()) {
    type_error(format("{} cannot be iterated over", value.type_name()));
  }
  return out;
}

Value Evaluator::call(const Value& callee, Arguments arguments) {
  if (callee.is_undefined())
    type_error(format("'{}' is undefined, so it cannot be called", callee.undefined().name));
  if (!callee.is_callable()) type_error(format("{} cannot be called", callee.type_name()));
  const Callable& target = callee.callable();
  switch (target.kind) {
    case Callable::Kind::kMacro:
      return call_macro(*target.macro, arguments);
    case Callable::Kind::kMethod:
      return call_method(target.self, target.name, arguments);
    default:
      return call_function(target.name, arguments);
  }
}

Value Evaluator::call_macro(const MacroNode& macro, const Arguments& arguments) {
  if (arguments.positional.size() > macro.parameters.size()) {
    type_error(format("the macro '{}' takes {} arguments, found {}", macro.name,
                      macro.parameters.size(), arguments.positional.size()));
  }
  for (const auto& [name, value] : arguments.named) {
    const bool known =
        std::any_of(macro.parameters.begin(), macro.parameters.end(),
                    [&wanted = name](const auto& parameter) { return parameter.first == wanted; });
    if (!known) type_error(format("the macro '{}' has no parameter '{}'", macro.name, name));
  }
  const std::size_t outer = visible_from_;
  const std::size_t base = frames_.size();
  visible_from_ = base;
  frames_.emplace_back();
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const Value* given = arguments.get(i, name);
    assign(name, given != nullptr ? *given
                 : fallback       ? evaluate(*fallback)
                                  : Value(Undefined{name}));
  }
  MarkedText text;
  execute(macro.body, text);
  frames_.resize(base);
  visible_from_ = outer;
  return Value(std::move(text));
}

Value Evaluator::call_function(std::string_view name, const Arguments& arguments) {
  if (name == "raise_exception") {
    const Value* message = arguments.get(0, "message");
    throw Error(ErrorKind::kInput, "chat template",
                message != nullptr ? to_text(*message).bytes : "raise_exception was called");
  }
  if (name == "namespace" || name == "dict") {
    Namespace members;
    if (const Value* initial = arguments.get(0, ""); initial != nullptr && initial->is_dict()) {
      for (const auto& [key, value] : initial->entries().entries)
        members.members.emplace_back(to_text(key).bytes, value);
    }
    for (const auto& member : arguments.named) members.members.push_back(member);
    if (name == "namespace") {
      namespaces_.push_back(std::move(members));
      return Value(&namespaces_.back());
    }
    std::vector<std::pair<Value, Value>> entries;
    for (auto& [key, value] : members.members) entries.emplace_back(Value(key), std::move(value));
    return Value::dict(std::move(entries));
  }
  // range
  std::int64_t bounds[3] = {0, 0, 1};
  const std::size_t count = arguments.positional.size();
  if (count < 1 || count > 3) type_error("range takes 1 to 3 integers");
  for (std::size_t i = 0; i < count; ++i) {
    if (!arguments.positional[i].is_int())
      type_error(format("range takes integers, found {}", arguments.positional[i].type_name()));
    bounds[count == 1 ? 1 : i] = arguments.positional[i].integer();
  }
  if (bounds[2] == 0) type_error("the step of range is 0");
  std::vector<Value> items;
  for (std::int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];) {
    if (static_cast<std::int64_t>(items.size()) >= kMaxRange)
      type_error(format("a range is longer than {}", kMaxRange));
    items.emplace_back(i);
    if (__builtin_add_overflow(i, bounds[2], &i)) break;
  }
  spend(2 * items.size());
  return Value::list(std::move(items));
}

}  // namespace espalier::text::jinja
