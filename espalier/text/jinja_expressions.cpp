// Evaluating expressions: one case per kind of node, slices and comparisons on their own.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {

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

}  // namespace espalier::text::jinja
