// Bytes that are made piece by piece, so that a tensor larger than memory can be written.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace espalier {

/// Takes the next piece.
using ByteSink = std::function<void(std::span<const std::byte>)>;
/// Hands all bytes of one tensor to the sink, in order, when its turn to be written has come.
using ByteProducer = std::function<void(const ByteSink&)>;

}  // namespace espalier
