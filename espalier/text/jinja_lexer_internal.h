// Template source to tokens, with the white-space rules that transformers sets (trim_blocks,
// lstrip_blocks).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::text::jinja {

enum class TokenKind : std::uint8_t {
  kText,
  kBlockBegin,
  kBlockEnd,
  kPrintBegin,
  kPrintEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // of a string: its value, escapes resolved
  int line = 1;
};

/// Throws Error(kInput) with the line on an unclosed tag, string or comment.
std::vector<Token> tokenize(std::string_view source);

}  // namespace espalier::text::jinja
