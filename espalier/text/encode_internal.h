// The encoding pipeline with stretches in which special tokens are letters.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "espalier/text/tokenizer.h"

namespace espalier::text {

using Marks = std::vector<std::pair<std::size_t, std::size_t>>;

/// Ids of valid UTF-8 `text` without anything around it. Special tokens are recognised only where
/// they touch none of the `marks` ([begin, end) in bytes, sorted); otherwise the ids are those of
/// the text encoded as a whole.
std::vector<TokenId> encode_marked(const Tokenizer::Impl& impl, std::string_view text,
                                   const Marks& marks);

}  // namespace espalier::text
