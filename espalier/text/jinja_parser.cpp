// Statements: text, prints, and the tags if, for, set, macro, break, continue, generation.
#include <algorithm>
#include <initializer_list>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_expression_parser_internal.h"
#include "espalier/text/jinja_parser_internal.h"

namespace espalier::text::jinja {
namespace {

constexpr int kMaxBlocks = 40;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() {
    Body body = statements({});
    if (peek().kind != TokenKind::kEnd) fail("expected a tag that is open here");
    return body;
  }

 private:
  using StatementPtr = std::unique_ptr<Statement>;

  StatementPtr make_statement(StatementKind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = peek().line;
    return statement;
  }

  void end_block() {
    if (peek().kind != TokenKind::kBlockEnd) fail("expected '%}'");
    take();
  }

  /// True at {% name %} for one of `names`, which is not consumed.
  bool at_tag(std::initializer_list<std::string_view> names) const {
    if (peek().kind != TokenKind::kBlockBegin || peek(1).kind != TokenKind::kName) return false;
    return std::find(names.begin(), names.end(), peek(1).text) != names.end();
  }

  Body statements(std::initializer_list<std::string_view> until) {
    if (++blocks_ > kMaxBlocks) unsupported(format("nesting of more than {} tags", kMaxBlocks));
    Body body;
    while (peek().kind != TokenKind::kEnd && !at_tag(until)) {
      if (peek().kind == TokenKind::kText) {
        auto text = make_statement(StatementKind::kText);
        text->text = take().text;
        body.push_back(std::move(text));
      } else if (peek().kind == TokenKind::kPrintBegin) {
        take();
        auto print = make_statement(StatementKind::kPrint);
        print->expr = tuple(true);
        if (peek().kind != TokenKind::kPrintEnd) fail("expected '}}'");
        take();
        body.push_back(std::move(print));
      } else {
        take();
        body.push_back(tag());
      }
    }
    --blocks_;
    return body;
  }

  /// The body of a tag and its closing {% end... %}.
  Body body_until(std::string_view end) {
    Body body = statements({end});
    close(end);
    return body;
  }

  void close(std::string_view end) {
    if (!at_tag({end})) fail(format("expected '{{% {} %}}'", end));
    take();
    take();
    end_block();
  }

  StatementPtr tag() {
    const std::string name = peek().kind == TokenKind::kName ? peek().text : "";
    if (name == "if") return if_tag();
    if (name == "for") return for_tag();
    if (name == "set") return set_tag();
    if (name == "macro") return macro_tag();
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail("expected a loop around it");
      auto jump =
          make_statement(name == "break" ? StatementKind::kBreak : StatementKind::kContinue);
      take();
      end_block();
      return jump;
    }
    if (name == "generation") {
      auto group = make_statement(StatementKind::kGroup);
      take();
      end_block();
      group->body = body_until("endgeneration");
      return group;
    }
    if (name.empty() || name.starts_with("end") || name == "else" || name == "elif")
      fail("expected a tag that is open here");
    unsupported(format("the tag '{}'", name));
  }

  StatementPtr if_tag() {
    auto statement = make_statement(StatementKind::kIf);
    take();
    ExprPtr condition = tuple(true);
    while (true) {
      end_block();
      Body body = statements({"elif", "else", "endif"});
      statement->branches.emplace_back(std::move(condition), std::move(body));
      if (!at_tag({"elif"})) break;
      take();
      take();
      condition = tuple(true);
    }
    if (at_tag({"else"})) {
      take();
      take();
      end_block();
      statement->branches.emplace_back(nullptr, statements({"endif"}));
    }
    close("endif");
    return statement;
  }

  std::vector<std::string> targets() {
    std::vector<std::string> names;
    const bool bracket = skip_operator("(");
    do {
      if (is_name("in")) break;
      names.push_back(expect_name("a variable's name"));
    } while (skip_operator(","));
    if (bracket) expect_operator(")");
    return names;
  }

  StatementPtr for_tag() {
    auto statement = make_statement(StatementKind::kFor);
    take();
    statement->targets = targets();
    if (!skip_name("in")) fail("expected 'in'");
    statement->expr = tuple(false);
    if (is_name("recursive")) unsupported("a recursive loop");
    if (skip_name("if")) statement->condition = expression();
    if (is_name("recursive")) unsupported("a recursive loop");
    end_block();
    ++loops_;
    statement->body = statements({"else", "endfor"});
    --loops_;
    if (at_tag({"else"})) {
      take();
      take();
      end_block();
      statement->else_body = statements({"endfor"});
    }
    close("endfor");
    return statement;
  }

  StatementPtr set_tag() {
    auto statement = make_statement(StatementKind::kSet);
    take();
    statement->targets = targets();
    if (statement->targets.size() == 1 && skip_operator("."))
      statement->attribute = expect_name("an attribute's name");
    if (skip_operator("=")) {
      statement->expr = tuple(true);
      end_block();
      return statement;
    }
    statement->kind = StatementKind::kSetBlock;
    if (statement->targets.size() != 1) fail("expected '='");
    if (is_operator("|")) {
      // The filters apply to a name that the evaluator fills with the block's text.
      statement->expr = filters(make(ExprKind::kName, {},
                                     "\x01"
                                     "block"));
    }
    end_block();
    statement->body = body_until("endset");
    return statement;
  }

  StatementPtr macro_tag() {
    auto statement = make_statement(StatementKind::kMacro);
    if (loops_ > 0 || macros_ > 0) unsupported("a macro inside a loop or another macro");
    take();
    auto macro = std::make_unique<MacroNode>();
    macro->line = statement->line;
    macro->name = expect_name("a macro's name");
    expect_operator("(");
    while (!is_operator(")")) {
      std::string parameter = expect_name("a parameter's name");
      ExprPtr fallback = skip_operator("=") ? expression() : nullptr;
      macro->parameters.emplace_back(std::move(parameter), std::move(fallback));
      if (!is_operator(")")) expect_operator(",");
    }
    take();
    end_block();
    ++macros_;
    macro->body = body_until("endmacro");
    --macros_;
    statement->macro = std::move(macro);
    return statement;
  }

  int blocks_ = 0;
  int loops_ = 0;
  int macros_ = 0;
};

}  // namespace

Body parse_template(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace espalier::text::jinja
