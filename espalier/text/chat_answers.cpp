// Which tokens of a conversation the assistant speaks: the conversation is rendered as far as each
// answer, with and without it, and the beginnings are compared with the whole.
#include <algorithm>
#include <optional>
#include <span>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/chat_template_internal.h"
#include "espalier/text/encode_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier {
namespace {

constexpr std::string_view kBlank = " \t\r\n\v\f";
constexpr std::string_view kEndOfThought = "</think>";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

/// What a template may show of an answer: all of it, or what follows its thoughts.
std::vector<std::string_view> spellings(std::string_view content) {
  std::vector<std::string_view> out{trimmed(content)};
  if (const std::size_t end = content.rfind(kEndOfThought); end != std::string_view::npos)
    out.push_back(trimmed(content.substr(end + kEndOfThought.size())));
  std::erase(out, std::string_view{});
  return out;
}

struct Piece {
  std::size_t begin, end;
};

/// The answer in `text` at or behind `from`; the first of its spellings that is there.
std::optional<Piece> find_answer(std::string_view text, std::string_view content,
                                 std::size_t from) {
  for (const std::string_view words : spellings(content)) {
    const std::size_t at = text.find(words, from);
    if (at != std::string_view::npos) return Piece{at, at + words.size()};
  }
  return std::nullopt;
}

std::size_t common_length(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

/// One answer in the text of the whole conversation.
struct AnswerText {
  std::size_t begin = 0;        // where the model starts to write
  std::size_t content_end = 0;  // behind the last word
  std::size_t end = 0;          // behind what the template closes the turn with
};

class AnswerFinder {
 public:
  AnswerFinder(const ChatTemplate::Impl& chat, const std::vector<ChatMessage>& messages,
               const std::map<std::string, std::string>& strings, const text::MarkedText& whole)
      : chat_(chat), messages_(messages), strings_(strings), whole_(whole.bytes) {}

  /// Answers have to be asked for in order; nothing for one without words.
  std::optional<AnswerText> operator()(std::size_t turn) {
    const std::string content = text::to_valid_utf8(messages_[turn].content);
    if (spellings(content).empty()) return std::nullopt;
    AnswerText answer;
    const std::optional<std::string> head = beginning(turn, true);
    const bool follows = head && whole_.starts_with(*head) && head->size() >= from_;
    const std::optional<Piece> words =
        find_answer(whole_, content, follows ? head->size() : behind_earlier_words(turn));
    if (!words) {
      throw Error(ErrorKind::kUnsupported, "chat template",
                  format("does not show the words of message {}, so its tokens cannot be told from "
                         "the others",
                         turn))
          .hint("train on the whole conversation instead: --train-on all");
    }
    answer.begin = follows ? head->size() : words->begin;
    answer.content_end = words->end;
    answer.end = words->end + closing_bytes(turn, content, words->end);
    from_ = answer.content_end;
    last_turn_ = turn + 1;
    return answer;
  }

 private:
  /// The conversation before message `count`; nothing when the template refuses to stop there.
  std::optional<std::string> beginning(std::size_t count, bool prompt) const {
    try {
      const auto end = messages_.begin() + static_cast<std::ptrdiff_t>(count);
      return chat_.render({messages_.begin(), end}, prompt, strings_).bytes;
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  /// How much of the text at `at` belongs to the turn, judged by how the conversation ends when
  /// this is its last message.
  std::size_t closing_bytes(std::size_t turn, std::string_view content, std::size_t at) const {
    const std::optional<std::string> ended = turn + 1 == messages_.size()
                                                 ? std::optional<std::string>(whole_)
                                                 : beginning(turn + 1, false);
    if (!ended) return 0;
    for (const std::string_view words : spellings(content)) {
      const std::size_t last = ended->rfind(words);
      if (last == std::string::npos) continue;
      const std::string_view closing = std::string_view(*ended).substr(last + words.size());
      return common_length(closing, std::string_view(whole_).substr(at));
    }
    return 0;
  }

  /// For templates that move things around: a place behind the words of all messages before.
  std::size_t behind_earlier_words(std::size_t turn) const {
    std::size_t at = from_;
    for (std::size_t i = last_turn_; i < turn; ++i) {
      const auto words = find_answer(whole_, text::to_valid_utf8(messages_[i].content), at);
      if (words) at = words->end;
    }
    return at;
  }

  const ChatTemplate::Impl& chat_;
  const std::vector<ChatMessage>& messages_;
  const std::map<std::string, std::string>& strings_;
  const std::string& whole_;
  std::size_t from_ = 0;       // behind the last answer found
  std::size_t last_turn_ = 0;  // the message after it
};

/// Tokens of the whole text up to byte `at`: those it shares with the text cut there, and, with
/// kTake, the token that reaches over `at`.
enum class Straddling : std::uint8_t { kLeave, kTake };
std::size_t tokens_up_to(std::size_t at, Straddling straddling, const Tokenizer& tokenizer,
                         const text::MarkedText& whole, const std::vector<TokenId>& ids) {
  const text::MarkedText head = whole.slice(0, at);
  const std::vector<TokenId> cut = text::encode_marked(tokenizer.impl(), head.bytes, head.marks);
  const auto shared = static_cast<std::size_t>(
      std::mismatch(cut.begin(), cut.end(), ids.begin(), ids.end()).first - cut.begin());
  const bool straddles = shared < cut.size() && straddling == Straddling::kTake;
  return std::min(ids.size(), shared + (straddles ? 1 : 0));
}

}  // namespace

ChatTokens ChatTemplate::encode_with_answers(const Tokenizer& tokenizer,
                                             const std::vector<ChatMessage>& messages) const {
  const std::map<std::string, std::string> strings = special_token_names(tokenizer);
  const text::MarkedText whole = impl_->render(messages, false, strings);
  ChatTokens out;
  out.ids = text::encode_marked(tokenizer.impl(), whole.bytes, whole.marks);
  AnswerFinder find(*impl_, messages, strings, whole);
  for (std::size_t turn = 0; turn < messages.size(); ++turn) {
    if (messages[turn].role != "assistant") continue;
    const std::optional<AnswerText> answer = find(turn);
    if (!answer) continue;
    const auto tokens = [&](std::size_t at, Straddling straddling) {
      return tokens_up_to(at, straddling, tokenizer, whole, out.ids);
    };
    const std::size_t begin = tokens(answer->begin, Straddling::kLeave);
    std::size_t end = tokens(answer->content_end, Straddling::kTake);
    // The model has to learn to end its turn, but not what the template writes behind that.
    const std::size_t last = tokens(answer->end, Straddling::kLeave);
    for (std::size_t i = end; i < last; ++i) {
      if (!tokenizer.is_special(out.ids[i])) continue;
      end = i + 1;
      break;
    }
    if (begin < end) out.answers.push_back({begin, end});
  }
  return out;
}

std::optional<TokenId> ChatTemplate::end_of_turn(const Tokenizer& tokenizer) const {
  try {
    const ChatTokens chat =
        encode_with_answers(tokenizer, {{"user", "Hello."}, {"assistant", "Good day."}});
    if (chat.answers.empty()) return std::nullopt;
    const TokenId last = chat.ids[chat.answers.back().second - 1];
    return tokenizer.is_special(last) ? std::optional<TokenId>(last) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace espalier
