// The evaluator: scopes, statements and expressions. Filters, tests and methods are in
// jinja_filters.cpp and jinja_methods.cpp.
#include <algorithm>
#include <cmath>
#include <limits>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {
namespace {

constexpr std::size_t kMaxSteps = 1'000'000;
// Text made in total, results of intermediate steps included: so much for any template, and so much
// per byte given.
constexpr std::size_t kBaseBytes = 16ull << 20;
constexpr std::size_t kBytesPerByte = 256;
constexpr int kMaxDepth = 500;  // of nested evaluation; a level costs up to about 1 KiB of stack
constexpr std::int64_t kMaxRange = 100'000;  // the sandbox of Jinja has the same bound
constexpr std::string_view kBlockName =
    "\x01"
    "block";

std::size_t text_size(const Value& value) {
  std::size_t size = value.is_text() ? value.bytes().size() : 0;
  if (value.is_list()) {
    for (const Value& item : value.items().items) size += text_size(item);
  } else if (value.is_dict()) {
    for (const auto& [key, item] : value.entries().entries) size += text_size(item);
  }
  return size;
}

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

class Evaluator::DepthGuard {
 public:
  explicit DepthGuard(int& depth) : depth_(depth) {
    if (++depth_ > kMaxDepth) {
      --depth_;
      throw Error(ErrorKind::kInput, "chat template", "recurses too deeply");
    }
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

const Value* Arguments::get(std::size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Evaluator::Evaluator(const Body& body, std::vector<std::pair<std::string, Value>> variables)
    : body_(body), globals_(std::move(variables)) {
  max_bytes_ = kBaseBytes;
  for (const auto& [name, value] : globals_) max_bytes_ += kBytesPerByte * text_size(value);
  for (const char* name : {"range", "namespace", "raise_exception", "dict"}) {
    globals_.emplace_back(name, Value(std::make_shared<const Callable>(
                                    Callable{Callable::Kind::kFunction, name, nullptr, Value()})));
  }
}

MarkedText Evaluator::run() {
  frames_.assign(1, {});
  visible_from_ = 0;
  MarkedText out;
  execute(body_, out);
  return out;
}

void Evaluator::spend(std::size_t steps, std::size_t bytes) {
  steps_ += steps;
  bytes_ += bytes;
  if (steps_ > kMaxSteps)
    throw Error(ErrorKind::kInput, "chat template",
                format("did not end within {} steps", kMaxSteps));
  if (bytes_ > max_bytes_)
    throw Error(ErrorKind::kInput, "chat template",
                format("made more than {} MiB of text", max_bytes_ >> 20));
}

Value Evaluator::look_up(const std::string& name) const {
  for (std::size_t i = frames_.size(); i-- > 0;) {
    if (i < visible_from_ && i > 0) continue;
    for (const auto& [key, value] : frames_[i]) {
      if (key == name) return value;
    }
  }
  for (const auto& [key, value] : globals_) {
    if (key == name) return value;
  }
  return Value(Undefined{name});
}

void Evaluator::assign(const std::string& name, Value value) {
  for (auto& [key, slot] : frames_.back()) {
    if (key == name) {
      slot = std::move(value);
      return;
    }
  }
  frames_.back().emplace_back(name, std::move(value));
}

void Evaluator::assign_targets(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) return assign(targets[0], value);
  const std::vector<Value> parts = elements(value);
  if (parts.size() != targets.size())
    type_error(format("{} values for {} variables", parts.size(), targets.size()));
  for (std::size_t i = 0; i < parts.size(); ++i) assign(targets[i], parts[i]);
}

Evaluator::Flow Evaluator::execute(const Body& body, MarkedText& out) {
  for (const auto& statement : body) {
    const Flow flow = execute(*statement, out);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::execute(const Statement& statement, MarkedText& out) {
  const DepthGuard guard(depth_);
  spend(1);
  try {
    switch (statement.kind) {
      case StatementKind::kText:
        spend(0, statement.text.size());
        out.append(statement.text);
        return Flow::kNext;
      case StatementKind::kPrint: {
        const MarkedText text = to_text(evaluate(*statement.expr));
        spend(text.marks.size(), text.bytes.size());
        out.append(text);
        return Flow::kNext;
      }
      case StatementKind::kIf:
        for (const auto& [condition, body] : statement.branches) {
          if (!condition || evaluate(*condition).truth()) return execute(body, out);
        }
        return Flow::kNext;
      case StatementKind::kFor:
        execute_for(statement, out);
        return Flow::kNext;
      case StatementKind::kSet:
      case StatementKind::kSetBlock:
        execute_set(statement);
        return Flow::kNext;
      case StatementKind::kMacro:
        assign(
            statement.macro->name,
            Value(std::make_shared<const Callable>(Callable{
                Callable::Kind::kMacro, statement.macro->name, statement.macro.get(), Value()})));
        return Flow::kNext;
      case StatementKind::kBreak:
        return Flow::kBreak;
      case StatementKind::kContinue:
        return Flow::kContinue;
      case StatementKind::kGroup: {
        frames_.emplace_back();
        const Flow flow = execute(statement.body, out);
        frames_.pop_back();
        return flow;
      }
    }
  } catch (Error& error) {
    // The innermost statement names the line.
    if (error.subject() != "chat template") throw;
    Error located(error.kind(), format("chat template:{}", statement.line), error.message());
    if (!error.hint_text().empty()) located.hint(error.hint_text());
    throw located;
  }
  return Flow::kNext;
}

void Evaluator::execute_for(const Statement& statement, MarkedText& out) {
  std::vector<Value> items = elements(evaluate(*statement.expr));
  if (statement.condition) {
    std::vector<Value> kept;
    for (Value& value : items) {
      frames_.emplace_back();
      assign_targets(statement.targets, value);
      const bool keep = evaluate(*statement.condition).truth();
      frames_.pop_back();
      if (keep) kept.push_back(std::move(value));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    frames_.emplace_back();
    execute(statement.else_body, out);
    frames_.pop_back();
    return;
  }
  const Value all = Value::list(std::move(items));
  for (std::size_t i = 0; i < all.items().items.size(); ++i) {
    spend(1);
    frames_.emplace_back();
    assign("loop", Value(std::make_shared<const Loop>(Loop{all.shared_items(), i})));
    assign_targets(statement.targets, all.items().items[i]);
    const Flow inner = execute(statement.body, out);
    frames_.pop_back();
    if (inner == Flow::kBreak) break;
  }
}

void Evaluator::execute_set(const Statement& statement) {
  Value value;
  if (statement.kind == StatementKind::kSetBlock) {
    MarkedText text;
    frames_.emplace_back();
    execute(statement.body, text);
    frames_.pop_back();
    value = Value(std::move(text));
    if (statement.expr) {
      frames_.emplace_back();
      assign(std::string(kBlockName), value);
      value = evaluate(*statement.expr);
      frames_.pop_back();
    }
  } else {
    value = evaluate(*statement.expr);
  }
  if (statement.attribute.empty()) return assign_targets(statement.targets, value);
  const Value space = look_up(statement.targets[0]);
  if (!space.is_namespace())
    type_error(
        format("'{}' is no namespace, so its attributes cannot be set", statement.targets[0]));
  auto& members = space.space()->members;
  const auto known = std::find_if(members.begin(), members.end(), [&](const auto& member) {
    return member.first == statement.attribute;
  });
  if (known != members.end()) {
    known->second = std::move(value);
  } else {
    members.emplace_back(statement.attribute, std::move(value));
  }
}

Value Evaluator::evaluate(const Expr& expr) {
  const DepthGuard guard(depth_);
  spend(1);
  const auto arg = [&](std::size_t i) { return evaluate(*expr.args[i]); };
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.value;
    case ExprKind::kName:
      return look_up(expr.name);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      std::vector<Value> items;
      for (std::size_t i = 0; i < expr.args.size(); ++i) items.push_back(arg(i));
      return Value::list(std::move(items), expr.kind == ExprKind::kTuple);
    }
    case ExprKind::kDict: {
      std::vector<std::pair<Value, Value>> entries;
      for (std::size_t i = 0; i + 1 < expr.args.size(); i += 2) {
        Value key = arg(i);
        entries.emplace_back(std::move(key), arg(i + 1));
      }
      spend(entries.size() * entries.size() / 16);
      return Value::dict(std::move(entries));
    }
    case ExprKind::kAttribute:
      return attribute(arg(0), expr.name);
    case ExprKind::kItem: {
      const Value object = arg(0);
      return item(object, arg(1));
    }
    case ExprKind::kSlice:
      return evaluate_slice(expr);
    case ExprKind::kCall:
      return evaluate_call(expr);
    case ExprKind::kFilter: {
      const Value input = arg(0);
      return apply_filter(expr.name, input, arguments_of(expr));
    }
    case ExprKind::kTest: {
      const Value input = arg(0);
      return Value(apply_test(expr.name, input, arguments_of(expr)));
    }
    case ExprKind::kNot:
      return Value(!arg(0).truth());
    case ExprKind::kNegate:
      return binary("-", Value(std::int64_t{0}), arg(0));
    case ExprKind::kPlus:
      return binary("+", Value(std::int64_t{0}), arg(0));
    case ExprKind::kBinary: {
      const Value left = arg(0);
      return binary(expr.name, left, arg(1));
    }
    case ExprKind::kConcat: {
      MarkedText text;
      for (std::size_t i = 0; i < expr.args.size(); ++i) text.append(to_text(arg(i)));
      spend(text.marks.size(), text.bytes.size());
      return Value(std::move(text));
    }
    case ExprKind::kCompare:
      return evaluate_compare(expr);
    case ExprKind::kAnd: {
      Value left = arg(0);
      return left.truth() ? arg(1) : left;
    }
    case ExprKind::kOr: {
      Value left = arg(0);
      return left.truth() ? left : arg(1);
    }
    case ExprKind::kConditional:
      if (arg(0).truth()) return arg(1);
      return expr.args[2] ? arg(2) : Value();
  }
  return Value();
}

Arguments Evaluator::arguments_of(const Expr& expr) {
  Arguments arguments;
  for (std::size_t i = 1; i < expr.args.size(); ++i)
    arguments.positional.push_back(evaluate(*expr.args[i]));
  for (const auto& [name, value] : expr.named) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

Value Evaluator::evaluate_call(const Expr& expr) {
  const Value callee = evaluate(*expr.args[0]);
  return call(callee, arguments_of(expr));
}

Value Evaluator::evaluate_compare(const Expr& expr) {
  Value left = evaluate(*expr.args[0]);
  for (std::size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = evaluate(*expr.args[i + 1]);
    const std::string& op = expr.ops[i];
    if (left.is_text()) spend(0, left.bytes().size());
    bool holds = false;
    if (op == "==")
      holds = equal(left, right);
    else if (op == "!=")
      holds = !equal(left, right);
    else if (op == "in")
      holds = contains(right, left);
    else if (op == "not in")
      holds = !contains(right, left);
    else if (op == "<")
      holds = compare(left, right) < 0;
    else if (op == "<=")
      holds = compare(left, right) <= 0;
    else if (op == ">")
      holds = compare(left, right) > 0;
    else
      holds = compare(left, right) >= 0;
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::evaluate_slice(const Expr& expr) {
  const Value object = evaluate(*expr.args[0]);
  std::int64_t bound[3] = {0, 0, 1};
  bool given[3] = {false, false, false};
  for (int i = 0; i < 3; ++i) {
    const auto& arg = expr.args[static_cast<std::size_t>(i) + 1];
    if (!arg) continue;
    const Value value = evaluate(*arg);
    if (value.is_none()) continue;
    if (!value.is_int() && !value.is_bool())
      type_error(format("a slice bound is {}, expected an integer", value.type_name()));
    bound[i] = value.integer();
    given[i] = true;
  }
  if (!object.is_text() && !object.is_list())
    type_error(format("{} cannot be sliced", object.type_name()));
  std::vector<std::size_t> starts;  // byte offsets of the characters
  if (object.is_text()) {
    const std::string& bytes = object.bytes();
    spend(0, bytes.size() * 8);
    for (std::size_t i = 0; i < bytes.size();
         i += utf8_length(static_cast<unsigned char>(bytes[i])))
      starts.push_back(i);
    starts.push_back(bytes.size());
  }
  const auto size =
      static_cast<std::int64_t>(object.is_text() ? starts.size() - 1 : object.items().items.size());
  const std::int64_t step = bound[2];
  if (step == 0) type_error("a slice step is 0");
  const auto clamp = [&](int i, std::int64_t fallback) {
    if (!given[i]) return fallback;
    const std::int64_t at = bound[i] < 0 ? std::max<std::int64_t>(bound[i], -size - 1) + size
                                         : std::min(bound[i], size);
    return std::clamp<std::int64_t>(at, step > 0 ? 0 : -1, step > 0 ? size : size - 1);
  };
  const std::int64_t begin = clamp(0, step > 0 ? 0 : size - 1);
  const std::int64_t end = clamp(1, step > 0 ? size : -1);
  std::vector<std::size_t> chosen;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    chosen.push_back(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  spend(2 * chosen.size());
  if (object.is_list()) {
    std::vector<Value> items;
    for (const std::size_t i : chosen) items.push_back(object.items().items[i]);
    return Value::list(std::move(items), object.items().is_tuple);
  }
  if (step == 1)
    return chosen.empty()
               ? Value("")
               : Value(object.text().slice(starts[chosen.front()], starts[chosen.back() + 1]));
  MarkedText text;
  spend(chosen.size() * object.text().marks.size() / 8);
  for (const std::size_t i : chosen) text.append(object.text().slice(starts[i], starts[i + 1]));
  return Value(std::move(text));
}

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
