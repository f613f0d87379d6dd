// Recursive descent over one expression; the precedence is Jinja's (`~` binds tighter than +,
// filters than unary minus).
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/text/jinja_ast_internal.h"
#include "espalier/text/jinja_lexer_internal.h"

namespace espalier::text::jinja {

/// A cursor over tokens with the expression grammar; the statement parser builds on it.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  /// A conditional expression, or with `tuples` also `a, b`.
  ExprPtr expression();
  ExprPtr tuple(bool with_conditional);

 protected:
  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)];
  }
  Token take() { return tokens_[std::min(pos_++, tokens_.size() - 1)]; }
  bool is_operator(std::string_view op) const {
    return peek().kind == TokenKind::kOperator && peek().text == op;
  }
  bool is_name(std::string_view name) const {
    return peek().kind == TokenKind::kName && peek().text == name;
  }
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  std::string expect_name(std::string_view what);
  [[noreturn]] void fail(std::string_view what) const;
  [[noreturn]] void unsupported(std::string_view what) const;
  ExprPtr filters(ExprPtr value);
  ExprPtr make(ExprKind kind, std::vector<ExprPtr> args = {}, std::string name = {}) const;

 private:
  ExprPtr either();
  ExprPtr both();
  ExprPtr inverted();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filter);
  ExprPtr primary();
  ExprPtr list_or_dict();
  ExprPtr postfix(ExprPtr value);
  ExprPtr subscript(ExprPtr value);
  ExprPtr call(ExprKind kind, ExprPtr callee, std::string name);
  ExprPtr filter(ExprPtr value);
  ExprPtr test(ExprPtr value);
  bool starts_test_argument() const;

  std::vector<Token> tokens_;
  std::size_t pos_ = 0;
  int depth_ = 0;
};

}  // namespace espalier::text::jinja
