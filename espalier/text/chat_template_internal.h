// What ChatTemplate keeps, for its parts in other files.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "espalier/text/chat_template.h"
#include "espalier/text/jinja_ast_internal.h"
#include "espalier/text/marked_text_internal.h"

namespace espalier {

struct ChatTemplate::Impl {
  text::jinja::Body body;

  text::MarkedText render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                          const std::map<std::string, std::string>& strings) const;
};

/// The tokenizer's special tokens under the names templates use (bos_token, eos_token, ...).
std::map<std::string, std::string> special_token_names(const Tokenizer& tokenizer);

}  // namespace espalier
