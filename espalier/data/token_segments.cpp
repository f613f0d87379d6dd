// Reading a text file as token ids, piece by piece where the tokenizer provably allows it, so that
// progress shows and an early stop costs only what it needs.
#include "espalier/data/token_segments.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/units.h"

namespace espalier {
namespace {

constexpr std::size_t kPieceBytes = 256 << 10;
constexpr std::size_t kCheckBytes =
    96;                          // text on each side of a border that is encoded to check it
constexpr int kBorderTries = 8;  // borders looked at before the rest is taken as one piece
constexpr std::size_t kBytesPerToken = 6;  // first guess of how much text `max_tokens` needs

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// First p >= from where a line ends and a word begins, and where every pre-tokenizer of the GPT-2
/// family splits whether or not it sees the other side: after "\n" before " W", or after a lone
/// "\n" before "W" (of a longer run of blanks those regexes leave the last one to the word, so
/// there the end of the text would show). npos when none.
std::size_t next_border(std::string_view text, std::size_t from) {
  for (std::size_t p = text.find('\n', from > 0 ? from - 1 : 0); p != std::string_view::npos;
       p = text.find('\n', p + 1)) {
    const std::size_t after = p + 1;
    if (after < from || p == 0) continue;
    if (after + 1 < text.size() && text[after] == ' ' && is_letter(text[after + 1])) return after;
    if (after < text.size() && is_letter(text[after]) && !is_space(text[p - 1])) return after;
  }
  return std::string_view::npos;
}

enum class Border : std::uint8_t { kNone, kEndOnly, kBoth };

/// What the tokenizer itself says about a cut at `p`. kBoth: both sides can be encoded apart.
/// kEndOnly: the left side keeps its ids, but a text that begins at `p` would read differently
/// (SentencePiece puts a blank in front).
Border check_border(std::string_view text, std::size_t p, const Tokenizer& tokenizer,
                    const EncodeOptions& options) {
  const std::size_t begin = p > kCheckBytes ? p - kCheckBytes : 0;
  const std::string_view left = text.substr(begin, p - begin);
  const std::string_view right = text.substr(p, kCheckBytes);
  std::vector<TokenId> apart = tokenizer.encode(left, options);
  const std::vector<TokenId> joined =
      tokenizer.encode(text.substr(begin, left.size() + right.size()), options);
  if (apart.size() > joined.size() || !std::equal(apart.begin(), apart.end(), joined.begin()))
    return Border::kNone;
  const std::vector<TokenId> rest = tokenizer.encode(right, options);
  apart.insert(apart.end(), rest.begin(), rest.end());
  return apart == joined ? Border::kBoth : Border::kEndOnly;
}

/// First border at or after `from` that is at least as good as `wanted`; the end of the text when
/// there is none near.
std::size_t find_cut(std::string_view text, std::size_t from, Border wanted,
                     const Tokenizer& tokenizer, const EncodeOptions& options) {
  for (int i = 0; i < kBorderTries && from < text.size(); ++i) {
    const std::size_t p = next_border(text, from);
    if (p == std::string_view::npos) break;
    if (check_border(text, p, tokenizer, options) >= wanted) return p;
    from = p + 1;
  }
  return text.size();
}

/// Ids of the text, at least `enough` of them when it holds so many.
std::vector<TokenId> encode_in_pieces(std::string_view text, const Tokenizer& tokenizer,
                                      const EncodeOptions& options, std::size_t enough,
                                      ProgressPhase& phase) {
  std::vector<TokenId> ids;
  std::size_t begin = 0;
  while (begin < text.size() && ids.size() < enough) {
    const std::size_t want =
        std::min(kPieceBytes, std::max<std::size_t>((enough - ids.size()), 16) * kBytesPerToken);
    const std::size_t end = find_cut(text, begin + want, Border::kBoth, tokenizer, options);
    const std::vector<TokenId> piece = tokenizer.encode(text.substr(begin, end - begin), options);
    ids.insert(ids.end(), piece.begin(), piece.end());
    phase.update(static_cast<std::int64_t>(begin = end));
  }
  return ids;
}

/// The same for tokenizers whose texts cannot be split: ever longer beginnings of the text.
std::vector<TokenId> encode_beginning(std::string_view text, const Tokenizer& tokenizer,
                                      const EncodeOptions& options, std::size_t enough,
                                      ProgressPhase& phase) {
  for (std::size_t want = enough * kBytesPerToken;; want *= 2) {
    const std::size_t end = find_cut(text, want, Border::kEndOnly, tokenizer, options);
    std::vector<TokenId> ids = tokenizer.encode(text.substr(0, end), options);
    phase.update(static_cast<std::int64_t>(end));
    if (end == text.size() || ids.size() >= enough) return ids;
  }
}

}  // namespace

TokenText load_token_text(const std::filesystem::path& file, const Tokenizer& tokenizer,
                          Reporter& reporter, bool special_in_text, std::int64_t max_tokens) {
  const std::string text = read_file(file);
  TokenText result;
  result.path = file;
  result.sha256 = sha256_hex(text);
  EncodeOptions options;
  options.special_in_text = special_in_text;

  const auto phase = reporter.phase(format("tokenising {}", file.filename().string()),
                                    static_cast<std::int64_t>(text.size()), "bytes");
  // A text shorter than `kBytesPerToken` bytes a token is not worth cutting: guards the
  // multiplication as well.
  const bool cut =
      max_tokens > 0 && static_cast<std::size_t>(max_tokens) < text.size() / kBytesPerToken;
  const std::size_t enough = cut ? static_cast<std::size_t>(max_tokens) : text.size() + 1;
  const std::size_t first = next_border(text, std::min(text.size(), std::size_t{1}));
  const bool divisible = first != std::string_view::npos &&
                         check_border(text, first, tokenizer, options) == Border::kBoth;
  if (divisible) {
    result.ids = encode_in_pieces(text, tokenizer, options, enough, *phase);
  } else if (cut) {
    result.ids = encode_beginning(text, tokenizer, options, enough, *phase);
  } else {
    result.ids = tokenizer.encode(text, options);
  }
  if (max_tokens > 0 && result.ids.size() > static_cast<std::size_t>(max_tokens))
    result.ids.resize(static_cast<std::size_t>(max_tokens));
  phase->update(static_cast<std::int64_t>(text.size()));
  return result;
}

at::Tensor cut_segments(const TokenText& text, std::int64_t seq_len, std::int64_t max_segments,
                        std::int64_t required) {
  if (seq_len < 2) {
    throw Error(ErrorKind::kUsage, "--seq-len",
                format("is {}, but a segment needs at least 2 tokens", seq_len));
  }
  const auto found = static_cast<std::int64_t>(text.ids.size());
  const std::int64_t whole = found / seq_len;
  required = std::max<std::int64_t>(required, 1);
  if (whole < required) {
    std::int64_t needed = 0;
    if (__builtin_mul_overflow(required, seq_len, &needed))
      needed = std::numeric_limits<std::int64_t>::max();
    throw Error(ErrorKind::kInput, text.path.string(),
                format("holds {} tokens, but {} are needed ({} x {} tokens)", format_count(found),
                       format_count(needed), required, seq_len))
        .hint(whole > 0 ? format("use at most {} segments, or a longer text", whole)
                        : format("use a longer text, or segments of at most {} tokens",
                                 std::max<std::int64_t>(found, 2)));
  }
  const std::int64_t count = max_segments > 0 ? std::min(whole, max_segments) : whole;
  at::Tensor ids = at::empty({count, seq_len}, at::kLong);
  std::copy_n(text.ids.begin(), static_cast<std::size_t>(count * seq_len),
              ids.mutable_data_ptr<std::int64_t>());
  return ids;
}

}  // namespace espalier
