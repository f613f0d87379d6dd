// Runs a parsed template. Everything is bounded: steps, recursion, bytes made, so that a hostile
// template ends in an Error soon.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/text/jinja_ast_internal.h"

namespace espalier::text::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  /// Argument `index`, given by position or by name; null when it was left out.
  const Value* get(std::size_t index, std::string_view name) const;
};

class Evaluator {
 public:
  Evaluator(const Body& body, std::vector<std::pair<std::string, Value>> variables);

  /// The rendered text. Throws Error(kInput) for what Jinja would raise, `raise_exception`
  /// included, and for a template that exceeds the bounds.
  MarkedText run();

  // For the filters, tests and methods, which live in files of their own.
  Value call(const Value& callee, Arguments arguments);
  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  Value apply_filter(std::string_view name, const Value& input, const Arguments& arguments);
  bool apply_test(std::string_view name, const Value& input, const Arguments& arguments);
  Value call_method(const Value& self, std::string_view name, const Arguments& arguments);
  /// The elements that a for loop over `value` would see.
  std::vector<Value> elements(const Value& value);
  /// Charges work. Throws when the template has used up its share.
  void spend(std::size_t steps, std::size_t bytes = 0);

 private:
  using Frame = std::vector<std::pair<std::string, Value>>;
  enum class Flow : std::uint8_t { kNext, kBreak, kContinue };
  class DepthGuard;

  Value evaluate(const Expr& expr);
  Value evaluate_call(const Expr& expr);
  Value evaluate_compare(const Expr& expr);
  Value evaluate_slice(const Expr& expr);
  Arguments arguments_of(const Expr& expr);
  Value binary(std::string_view op, const Value& a, const Value& b);
  Value look_up(const std::string& name) const;
  void assign(const std::string& name, Value value);
  void assign_targets(const std::vector<std::string>& targets, const Value& value);
  Value call_macro(const MacroNode& macro, const Arguments& arguments);
  Value call_function(std::string_view name, const Arguments& arguments);

  Flow execute(const Body& body, MarkedText& out);
  Flow execute(const Statement& statement, MarkedText& out);
  void execute_for(const Statement& statement, MarkedText& out);
  void execute_set(const Statement& statement);

  const Body& body_;
  Frame globals_;
  std::deque<Frame> frames_;          // innermost last; a macro sees only the first and its own
  std::size_t visible_from_ = 0;      // frames below this one, except the first, are hidden
  std::deque<Namespace> namespaces_;  // live until the end: they may hold each other
  std::size_t steps_ = 0;
  std::size_t bytes_ = 0;
  std::size_t max_bytes_ = 0;
  int depth_ = 0;
};

/// Counts nested evaluation.
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
  // A level costs up to about 1 KiB of stack.
  static constexpr int kMaxDepth = 500;
  int& depth_;
};

}  // namespace espalier::text::jinja
