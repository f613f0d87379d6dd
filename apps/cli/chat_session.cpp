// The terminal side of a conversation. Lines are read from the descriptor itself, because waiting
// for them has to end when Ctrl-C is pressed, and the C++ streams go on.
#include "apps/cli/chat_session.h"

#include <cerrno>
#include <cstring>
#include <optional>

#include <poll.h>
#include <unistd.h>

#include "espalier/base/format.h"
#include "espalier/run/console_reporter.h"

#include "apps/cli/output.h"

namespace espalier::cli {
namespace {

constexpr std::size_t kMaxLineBytes = 1 << 20;
constexpr std::string_view kCommands =
    "/reset forgets the conversation, /exit ends, Ctrl-C stops an answer";

class LineReader {
 public:
  explicit LineReader(const StopToken& stop) : stop_(stop) {}

  /// The next line without its end; nothing at the end of input.
  std::optional<std::string> next() {
    for (;;) {
      if (const std::size_t newline = held_.find('\n'); newline != std::string::npos) {
        std::string line = held_.substr(0, newline);
        held_.erase(0, newline + 1);
        if (line.ends_with('\r')) line.pop_back();
        return line;
      }
      if (held_.size() > kMaxLineBytes)
        throw Error(ErrorKind::kInput, "standard input", "holds a line longer than 1 MiB");
      if (!refill()) return held_.empty() ? std::nullopt : std::optional(std::exchange(held_, {}));
    }
  }

 private:
  bool refill() {
    char buffer[4096];
    for (;;) {
      if (stop_.stop_requested()) throw Interrupted{};
      // poll returns when a signal comes, whatever SA_RESTART says; read would not.
      pollfd input{STDIN_FILENO, POLLIN, 0};
      if (::poll(&input, 1, -1) < 0 && errno == EINTR) continue;
      const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        throw Error(ErrorKind::kInput, "standard input",
                    format("cannot be read: {}", std::strerror(errno)));
      held_.append(buffer, static_cast<std::size_t>(got));
      return got > 0;
    }
  }

  const StopToken& stop_;
  std::string held_;
};

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r") == std::string::npos;
}

std::string summary(const ChatTurn& turn) {
  const double rate = turn.decode_seconds > 0
                          ? static_cast<double>(turn.token_ids.size()) / turn.decode_seconds
                          : 0.0;
  return format("{} tokens, ended by {}, {:.1f} tokens/s; {} of {} prompt tokens were new",
                turn.token_ids.size(), turn.finish_reason, rate, turn.prefilled_tokens,
                turn.prompt_tokens);
}

}  // namespace

std::vector<ChatExchange> run_chat_session(Conversation& conversation,
                                           const SamplingOptions& sampling, Context& context) {
  const bool stream = !context.common.json;
  const bool terminal = ::isatty(STDIN_FILENO) != 0 && ::isatty(STDERR_FILENO) != 0;
  if (terminal) context.reporter.info(kCommands);
  const auto on_text = [&](std::string_view piece) {
    if (stream) write_stdout(piece);
  };
  std::vector<ChatExchange> exchanges;
  LineReader lines(context.stop);
  for (;;) {
    if (terminal) write_stderr("> ");
    const std::optional<std::string> line = lines.next();
    if (!line || *line == "/exit" || *line == "/quit") break;
    if (is_blank(*line)) continue;
    if (*line == "/reset") {
      conversation.reset();
      context.reporter.info("the conversation starts anew");
      continue;
    }
    if (*line == "/help") {
      context.reporter.info(kCommands);
      continue;
    }
    try {
      ChatTurn turn = conversation.say(*line, sampling, on_text, context.stop);
      if (stream && !turn.text.ends_with('\n')) write_stdout("\n");
      context.reporter.debug(summary(turn));
      exchanges.push_back({*line, std::move(turn)});
    } catch (const Error& error) {
      // The history is as before: the user can shorten the message or start anew.
      if (!terminal || error.kind() != ErrorKind::kInput) throw;
      write_stderr(error.to_string() + "\n");
    }
    forget_stop_signals();
  }
  if (exchanges.empty())
    throw Error(ErrorKind::kInput, "standard input", "holds no message")
        .hint("type one, or give --prompt TEXT");
  return exchanges;
}

}  // namespace espalier::cli
