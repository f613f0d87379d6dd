// The evaluator's scopes and statements. Expressions, arithmetic and calls are in
// jinja_expressions.cpp, jinja_arithmetic.cpp and jinja_calls.cpp; filters, tests and methods in
// jinja_filters.cpp and jinja_methods.cpp.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"

namespace espalier::text::jinja {
namespace {

constexpr std::size_t kMaxSteps = 1'000'000;
// Text made in total, results of intermediate steps included: so much for any template, and so much
// per byte given.
constexpr std::size_t kBaseBytes = 16ull << 20;
constexpr std::size_t kBytesPerByte = 256;
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

}  // namespace

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

}  // namespace espalier::text::jinja
