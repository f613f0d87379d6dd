// One row of an image index as pixels: what decoding at once and decoding batch by batch share.
#pragma once

#include <cstdint>
#include <string>

#include "espalier/data/image_index.h"
#include "espalier/image/image.h"

namespace espalier {

enum class RowFault : std::uint8_t {
  kNone,
  kBroken,   // does not decode; BrokenRule decides
  kChannels  // decodes, but has not the wanted channels
};

struct DecodedRow {
  Image image;  // options.channels channels; resized and cropped when that was asked for
  RowFault fault = RowFault::kNone;
  std::string problem;  // "FILE: what is wrong"
};

/// Reads and decodes a row. What is wrong with the file is in the result, so that it can be called
/// on many threads; nothing but lack of memory is thrown.
DecodedRow decode_row(const ImageIndex& index, std::int64_t row, const ImageSetOptions& options);

/// [height, width, channels] to [channels, height, width].
void copy_planes(const Image& image, std::uint8_t* planes);

/// "3 channels (RGB)", "1 channel (grey)".
std::string describe_channels(std::int64_t channels);

}  // namespace espalier
