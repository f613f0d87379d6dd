// A conversation on standard input and output: each line a turn.
#pragma once

#include <string>
#include <vector>

#include "espalier/sample/conversation.h"

#include "apps/cli/command.h"

namespace espalier::cli {

struct ChatExchange {
  std::string user;
  ChatTurn answer;
};

/// Reads lines until the end of input or /exit; answers are streamed to stdout unless --json asks
/// for one document at the end. /reset forgets the conversation, /help lists the commands. Ctrl-C
/// ends an answer; where a line is being waited for, it ends the program (Interrupted). A turn that
/// no longer fits the model's context is reported and left out. Throws Error(kInput) when no line
/// held words.
std::vector<ChatExchange> run_chat_session(Conversation& conversation,
                                           const SamplingOptions& sampling, Context& context);

}  // namespace espalier::cli
