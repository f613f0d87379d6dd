// Text files as token rows: read as it stands, encoded once, cut into segments that do not overlap.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/text/tokenizer.h"

namespace espalier {

struct TokenText {
  std::vector<TokenId> ids;
  std::string sha256;  // of the file's bytes
  std::filesystem::path path;
};

/// Encodes the whole file once (no special tokens added). Caches nothing. Progress is reported:
/// tokenising is never silent. `max_tokens` > 0 stops early: only as much of the text is encoded as
/// needed for that many ids, and the ids equal the first ids of the whole text.
TokenText load_token_text(const std::filesystem::path& file, const Tokenizer& tokenizer,
                          Reporter& reporter, bool special_in_text = true,
                          std::int64_t max_tokens = 0);

/// The first `max_segments` (0 = all) segments of seq_len ids: [n, seq_len] int64. Error(kInput)
/// with tokens found and needed when there is not one whole segment, or fewer than `required`
/// segments.
at::Tensor cut_segments(const TokenText& text, std::int64_t seq_len, std::int64_t max_segments = 0,
                        std::int64_t required = 1);

}  // namespace espalier
