// Pruning as a file operation: kept bytes are copied from file to file, configs rewritten, the
// result re-opened, run once and compared with skipping the layers in memory. Memory O(1) in the
// model size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/reporter.h"

namespace espalier {

/// config.json with num_hidden_layers set, every list of length L filtered by `kept`, index lists
/// renumbered, max_window_layers counted, period-based patterns written out; unknown keys survive
/// (spec 3.1). Error(kUnsupported) for shared-KV configs whose sharing group would be broken.
std::string prune_hf_config(std::string_view config_json, const std::vector<std::int64_t>& kept,
                            std::int64_t num_layers);

struct PrunedFiles {
  std::uint64_t bytes = 0;  // of all files written
  std::int64_t tensors = 0;
  std::vector<std::pair<std::string, std::string>>
      digests;  // source and output weights files, "xxh3:..."
};

/// Copies `source` (a Hugging Face folder) without the removed layers into the existing, empty
/// `destination`: weights, config, index, companions, espalier_pruning.json is written by the
/// caller.
PrunedFiles prune_hf_folder(const std::filesystem::path& source,
                            const std::vector<std::int64_t>& kept,
                            const std::filesystem::path& destination, Reporter& reporter,
                            const StopToken& stop);

/// The same for a GGUF file (spec 3.4): blk.* renumbered, block_count set, per-layer arrays
/// filtered (an array whose length is not the block count is refused with key and both lengths),
/// bytes copied, split input joined.
PrunedFiles prune_gguf_file(const std::filesystem::path& source,
                            const std::vector<std::int64_t>& kept,
                            const std::filesystem::path& destination, Reporter& reporter,
                            const StopToken& stop);

/// Re-opens `pruned`, runs one short forward in it and in `source` with the layers skipped,
/// streaming both block by block, and compares hidden states bit for bit. Throws Error(kInternal)
/// naming the first layer that differs.
void verify_pruned(const std::filesystem::path& source, const std::vector<std::int64_t>& kept,
                   const std::filesystem::path& pruned, Reporter& reporter);

}  // namespace espalier
