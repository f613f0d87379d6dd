// A model of the pruned depth with random weights: what the pruned one has to beat (a sweep's row
// "scratch").
#pragma once

#include <cstdint>
#include <filesystem>

#include "espalier/base/reporter.h"

namespace espalier::layer_pruning {

/// Writes a folder with `source`'s config, tokenizer and first `layers` layers' shapes, and fresh
/// weights as transformers initialises them: matrices normal with config.json's initializer_range
/// (0.02), norms the identity, biases 0. Each tensor depends on `seed` and its name only. dtypes
/// are the source's (float32 from GGUF files). Error(kUnsupported) for folders whose weights are
/// quantised. Memory: the new model.
void write_scratch_model(const std::filesystem::path& source, std::int64_t layers,
                         const std::filesystem::path& destination, std::uint64_t seed,
                         Reporter& reporter, const StopToken& stop);

}  // namespace espalier::layer_pruning
