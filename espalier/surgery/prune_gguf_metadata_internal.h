// Metadata of a GGUF file after pruning. Internal to surgery.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "espalier/io/gguf.h"

namespace espalier {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

/// block_count set, `{arch}.*` arrays of one entry per layer filtered, leading counts recounted, a
/// sliding-window period written out as an array, `split.*` dropped; everything else as it stands,
/// in the same order.
///
/// Throws Error(kInput) with key and both lengths for an architecture array of any other length,
/// and when block_count is not `num_layers` (what the tensor names show); Error(kUnsupported) when
/// the plan breaks a sharing group or period.
GgufMetadata prune_gguf_metadata(const GgufFile& file, const std::vector<std::int64_t>& kept,
                                 std::int64_t num_layers);

}  // namespace espalier
