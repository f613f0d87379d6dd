// One weight from the type and row order it is stored in to another, in pieces. Internal to
// surgery.
#pragma once

#include <cstdint>

#include "espalier/io/byte_stream.h"
#include "espalier/models/decoder/checkpoint.h"

namespace espalier {

/// How a weight lies in a file, beside its type.
struct WeightForm {
  std::int64_t heads = 0;  // interleaved rows as in llama-arch GGUF files; 0: Hugging Face order
  float offset = 0;        // added to every value: gemma's norms in GGUF files
};

/// Streams `source` as `type` in the form `target`. Bytes are copied as they are when type and form
/// agree, moved row by row when only the order differs, dequantised and quantised otherwise.
///
/// Rows must be a multiple of the target's block. Memory O(piece of 4 MiB). Throws
/// Error(kUnsupported) for types that cannot be written.
void transcode(const StoredWeight& source, GgufType type, const WeightForm& target,
               const ByteSink& sink);

}  // namespace espalier
