// The parsed template: expressions and statements. Nodes are general on purpose; the evaluator
// knows what each kind keeps where.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "espalier/text/jinja_value_internal.h"

namespace espalier::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind : std::uint8_t {
  kConstant,     // value
  kName,         // name
  kList,         // args
  kTuple,        // args
  kDict,         // args: key, value, key, value, ...
  kAttribute,    // args[0] . name
  kItem,         // args[0] [ args[1] ]
  kSlice,        // args[0] [ args[1] : args[2] : args[3] ], null where left out
  kCall,         // args[0] ( args[1..], named )
  kFilter,       // args[0] | name ( args[1..], named )
  kTest,         // args[0] is name ( args[1..], named )
  kNot,          // args[0]
  kNegate,       // args[0]
  kPlus,         // args[0], unary
  kBinary,       // args[0] name args[1]: + - * / // % **
  kConcat,       // args joined by ~
  kCompare,      // args[0] ops[0] args[1] ops[1] args[2] ...
  kAnd,          // args[0], args[1]
  kOr,           // args[0], args[1]
  kConditional,  // args[1] if args[0] else args[2] (null: undefined)
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  int line = 0;
  int depth = 1;
  std::string name;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<std::string> ops;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

enum class StatementKind : std::uint8_t {
  kText,      // text
  kPrint,     // expr
  kIf,        // branches: condition (null: else), body
  kFor,       // targets in expr [if condition]: body, else_body
  kSet,       // targets = expr, or targets[0].attribute = expr
  kSetBlock,  // targets[0] = body, through filters
  kMacro,     // macro
  kBreak,
  kContinue,
  kGroup,  // body in its own scope: {% generation %}
};

struct MacroNode {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // default null when there is none
  Body body;
  int line = 0;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  std::string text;
  ExprPtr expr;
  ExprPtr condition;
  std::vector<std::string> targets;
  std::string attribute;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body body;
  Body else_body;
  std::unique_ptr<MacroNode> macro;
};

}  // namespace espalier::text::jinja
