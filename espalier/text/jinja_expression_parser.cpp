// Expression grammar of Jinja 3.1, level by level.
#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_expression_parser_internal.h"
#include "espalier/text/jinja_parser_internal.h"

namespace espalier::text::jinja {
namespace {

constexpr int kMaxNesting = 60;     // of brackets; each costs a dozen stack frames here
constexpr int kMaxExprDepth = 300;  // of the tree, which the evaluator walks recursively

std::vector<ExprPtr> pair_of(ExprPtr a, ExprPtr b = nullptr) {
  std::vector<ExprPtr> list;
  list.push_back(std::move(a));
  if (b) list.push_back(std::move(b));
  return list;
}

}  // namespace

void ExpressionParser::fail(std::string_view what) const {
  throw Error(ErrorKind::kInput, format("chat template:{}", peek().line),
              format("{}, found '{}'", what, peek().text.substr(0, 40)));
}

void ExpressionParser::unsupported(std::string_view what) const {
  throw Error(ErrorKind::kUnsupported, format("chat template:{}", peek().line),
              format("{} is not part of the templates that we can run", what))
      .hint("format the prompt yourself and leave the template out");
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!is_operator(op)) return false;
  take();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!is_name(name)) return false;
  take();
  return true;
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail(format("expected '{}'", op));
}

std::string ExpressionParser::expect_name(std::string_view what) {
  if (peek().kind != TokenKind::kName) fail(format("expected {}", what));
  return take().text;
}

ExprPtr ExpressionParser::make(ExprKind kind, std::vector<ExprPtr> args, std::string name) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = peek().line;
  node->name = std::move(name);
  for (const ExprPtr& arg : args) {
    if (arg) node->depth = std::max(node->depth, arg->depth + 1);
  }
  if (node->depth > kMaxExprDepth)
    unsupported(format("an expression nested deeper than {} levels", kMaxExprDepth));
  node->args = std::move(args);
  return node;
}

ExprPtr ExpressionParser::tuple(bool with_conditional) {
  const auto item = [&] { return with_conditional ? expression() : either(); };
  ExprPtr first = item();
  if (!is_operator(",")) return first;
  std::vector<ExprPtr> items = pair_of(std::move(first));
  while (skip_operator(",")) {
    const bool ends = peek().kind == TokenKind::kBlockEnd || peek().kind == TokenKind::kPrintEnd ||
                      is_operator(")") || is_operator("=");
    if (ends) break;
    items.push_back(item());
  }
  return make(ExprKind::kTuple, std::move(items));
}

ExprPtr ExpressionParser::expression() {
  if (++depth_ > kMaxNesting)
    unsupported(format("an expression nested deeper than {} brackets", kMaxNesting));
  ExprPtr value = either();
  while (skip_name("if")) {
    ExprPtr condition = either();
    std::vector<ExprPtr> args = pair_of(std::move(condition), std::move(value));
    args.push_back(skip_name("else") ? expression() : nullptr);
    value = make(ExprKind::kConditional, std::move(args));
  }
  --depth_;
  return value;
}

ExprPtr ExpressionParser::either() {
  ExprPtr left = both();
  while (skip_name("or")) left = make(ExprKind::kOr, pair_of(std::move(left), both()));
  return left;
}

ExprPtr ExpressionParser::both() {
  ExprPtr left = inverted();
  while (skip_name("and")) left = make(ExprKind::kAnd, pair_of(std::move(left), inverted()));
  return left;
}

ExprPtr ExpressionParser::inverted() {
  int count = 0;
  while (skip_name("not")) ++count;
  ExprPtr value = comparison();
  if (count == 0) return value;
  value = make(ExprKind::kNot, pair_of(std::move(value)));
  return count % 2 == 1 ? std::move(value) : make(ExprKind::kNot, pair_of(std::move(value)));
}

ExprPtr ExpressionParser::comparison() {
  std::vector<ExprPtr> operands = pair_of(sum());
  std::vector<std::string> ops;
  while (true) {
    if (peek().kind == TokenKind::kOperator &&
        (peek().text == "==" || peek().text == "!=" || peek().text == "<" || peek().text == "<=" ||
         peek().text == ">" || peek().text == ">=")) {
      ops.push_back(take().text);
    } else if (skip_name("in")) {
      ops.emplace_back("in");
    } else if (is_name("not") && peek(1).kind == TokenKind::kName && peek(1).text == "in") {
      take();
      take();
      ops.emplace_back("not in");
    } else {
      break;
    }
    operands.push_back(sum());
  }
  if (ops.empty()) return std::move(operands.front());
  ExprPtr node = make(ExprKind::kCompare, std::move(operands));
  node->ops = std::move(ops);
  return node;
}

ExprPtr ExpressionParser::sum() {
  ExprPtr left = concat();
  while (is_operator("+") || is_operator("-")) {
    std::string op = take().text;
    left = make(ExprKind::kBinary, pair_of(std::move(left), concat()), std::move(op));
  }
  return left;
}

ExprPtr ExpressionParser::concat() {
  std::vector<ExprPtr> parts = pair_of(product());
  while (skip_operator("~")) parts.push_back(product());
  return parts.size() == 1 ? std::move(parts.front()) : make(ExprKind::kConcat, std::move(parts));
}

ExprPtr ExpressionParser::product() {
  ExprPtr left = power();
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    std::string op = take().text;
    left = make(ExprKind::kBinary, pair_of(std::move(left), power()), std::move(op));
  }
  return left;
}

ExprPtr ExpressionParser::power() {
  ExprPtr left = unary(true);
  while (skip_operator("**"))
    left = make(ExprKind::kBinary, pair_of(std::move(left), unary(true)), "**");
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filter) {
  if (++depth_ > kMaxNesting)
    unsupported(format("an expression nested deeper than {} brackets", kMaxNesting));
  ExprPtr value;
  if (is_operator("-") || is_operator("+")) {
    const auto kind = take().text == "-" ? ExprKind::kNegate : ExprKind::kPlus;
    value = make(kind, pair_of(unary(false)));
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  if (with_filter) value = filters(std::move(value));
  --depth_;
  return value;
}

ExprPtr ExpressionParser::primary() {
  const Token& token = peek();
  ExprPtr node = make(ExprKind::kConstant);
  switch (token.kind) {
    case TokenKind::kName: {
      const std::string name = take().text;
      if (name == "true" || name == "True")
        node->value = Value(true);
      else if (name == "false" || name == "False")
        node->value = Value(false);
      else if (name == "none" || name == "None")
        node->value = Value(nullptr);
      else {
        node->kind = ExprKind::kName;
        node->name = name;
      }
      return node;
    }
    case TokenKind::kString: {
      std::string text = take().text;
      while (peek().kind == TokenKind::kString) text += take().text;
      node->value = Value(std::move(text));
      return node;
    }
    case TokenKind::kInteger: {
      std::int64_t value = 0;
      const auto end =
          std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
      if (end.ec != std::errc()) unsupported(format("the integer {}", token.text));
      take();
      node->value = Value(value);
      return node;
    }
    case TokenKind::kFloat:
      node->value = Value(std::strtod(take().text.c_str(), nullptr));
      return node;
    default:
      break;
  }
  if (skip_operator("(")) {
    ExprPtr inner = is_operator(")") ? make(ExprKind::kTuple) : tuple(true);
    expect_operator(")");
    return inner;
  }
  if (is_operator("[") || is_operator("{")) return list_or_dict();
  fail("expected an expression");
}

ExprPtr ExpressionParser::list_or_dict() {
  const bool is_list = take().text == "[";
  const std::string_view end = is_list ? "]" : "}";
  std::vector<ExprPtr> items;
  while (!is_operator(end)) {
    items.push_back(expression());
    if (!is_list) {
      expect_operator(":");
      items.push_back(expression());
    }
    if (!is_operator(end)) expect_operator(",");
  }
  take();
  return make(is_list ? ExprKind::kList : ExprKind::kDict, std::move(items));
}

ExprPtr ExpressionParser::postfix(ExprPtr value) {
  while (true) {
    if (is_operator(".") || is_operator("[")) {
      value = subscript(std::move(value));
    } else if (is_operator("(")) {
      value = call(ExprKind::kCall, std::move(value), {});
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr value) {
  if (skip_operator(".")) {
    if (peek().kind == TokenKind::kInteger) {
      ExprPtr index = primary();
      return make(ExprKind::kItem, pair_of(std::move(value), std::move(index)));
    }
    std::string name = expect_name("a name after '.'");
    return make(ExprKind::kAttribute, pair_of(std::move(value)), std::move(name));
  }
  expect_operator("[");
  ExprPtr bounds[3];
  int part = 0;
  for (; part < 3 && !is_operator("]"); ++part) {
    if (!is_operator(":")) bounds[part] = expression();
    if (!skip_operator(":")) break;
  }
  const bool is_slice = part > 0 || !bounds[0];
  expect_operator("]");
  if (!is_slice) return make(ExprKind::kItem, pair_of(std::move(value), std::move(bounds[0])));
  std::vector<ExprPtr> args = pair_of(std::move(value));
  for (ExprPtr& bound : bounds) args.push_back(std::move(bound));
  return make(ExprKind::kSlice, std::move(args));
}

ExprPtr ExpressionParser::call(ExprKind kind, ExprPtr callee, std::string name) {
  expect_operator("(");
  std::vector<ExprPtr> args = pair_of(std::move(callee));
  std::vector<std::pair<std::string, ExprPtr>> named;
  int depth = 1;
  while (!is_operator(")")) {
    if (is_operator("*") || is_operator("**")) unsupported("unpacking with * in a call");
    if (peek().kind == TokenKind::kName && peek(1).kind == TokenKind::kOperator &&
        peek(1).text == "=") {
      std::string key = take().text;
      take();
      named.emplace_back(std::move(key), expression());
      depth = std::max(depth, named.back().second->depth + 1);
    } else {
      if (!named.empty()) fail("expected a named argument after named ones");
      args.push_back(expression());
    }
    if (!is_operator(")")) expect_operator(",");
  }
  take();
  ExprPtr node = make(kind, std::move(args), std::move(name));
  node->named = std::move(named);
  node->depth = std::max(node->depth, depth);
  return node;
}

ExprPtr ExpressionParser::filters(ExprPtr value) {
  while (true) {
    if (is_operator("|")) {
      value = filter(std::move(value));
    } else if (is_name("is")) {
      value = test(std::move(value));
    } else if (is_operator("(")) {
      value = call(ExprKind::kCall, std::move(value), {});
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::filter(ExprPtr value) {
  expect_operator("|");
  std::string name = expect_name("a filter's name");
  if (!has_filter(name)) unsupported(format("the filter '{}'", name));
  if (is_operator("(")) return call(ExprKind::kFilter, std::move(value), std::move(name));
  return make(ExprKind::kFilter, pair_of(std::move(value)), std::move(name));
}

bool ExpressionParser::starts_test_argument() const {
  switch (peek().kind) {
    case TokenKind::kName:
      return !(is_name("else") || is_name("or") || is_name("and") || is_name("if") ||
               is_name("is") || is_name("in") || is_name("not"));
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    default:
      return is_operator("[") || is_operator("{");
  }
}

ExprPtr ExpressionParser::test(ExprPtr value) {
  take();  // is
  const bool negated = skip_name("not");
  std::string name = expect_name("a test's name");
  if (!has_test(name)) unsupported(format("the test '{}'", name));
  ExprPtr node;
  if (is_operator("(")) {
    node = call(ExprKind::kTest, std::move(value), std::move(name));
  } else if (starts_test_argument()) {
    ExprPtr argument = postfix(primary());
    node = make(ExprKind::kTest, pair_of(std::move(value), std::move(argument)), std::move(name));
  } else {
    node = make(ExprKind::kTest, pair_of(std::move(value)), std::move(name));
  }
  return negated ? make(ExprKind::kNot, pair_of(std::move(node))) : std::move(node);
}

}  // namespace espalier::text::jinja
