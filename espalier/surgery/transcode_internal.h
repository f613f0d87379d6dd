// One weight from the type and row order it is stored in to another, in pieces. Internal to
// surgery.
#pragma once

#include <cstdint>

#include "espalier/io/byte_stream.h"
#include "espalier/models/decoder/checkpoint.h"

namespace espalier {

/// Streams `source` as `type`, its rows in Hugging Face order (target_heads 0) or interleaved as
/// llama-arch GGUF files have them (target_heads = heads of that matrix). Bytes are copied as they
/// are when type and order agree, moved row by row when only the order differs, dequantised and
/// quantised otherwise.
///
/// Rows must be a multiple of the target's block. Memory O(piece of 4 MiB). Throws
/// Error(kUnsupported) for types that cannot be written.
void transcode(const StoredWeight& source, GgufType type, std::int64_t target_heads,
               const ByteSink& sink);

}  // namespace espalier
