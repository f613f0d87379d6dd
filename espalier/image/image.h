// Pixels in memory: 8 bits a channel, grey or RGB, rows from the top, channels interleaved as files
// and screens have them. No tensor and no file format; decode.h makes images from bytes.
#pragma once

#include <cstdint>
#include <vector>

namespace espalier {

/// What an image shall have: whatever its file has, one grey channel, or red, green and blue.
enum class PixelFormat : std::uint8_t { kAsStored, kGrey, kRgb };

struct Image {
  std::int64_t width = 0, height = 0;
  std::int64_t channels = 0;         // 1 grey, 3 RGB
  std::vector<std::uint8_t> pixels;  // [height, width, channels]
  std::int64_t warnings = 0;         // oddities of the file that cost no pixel (decode.h)
};

/// The image as grey or RGB. Grey is ITU-R 601 luma in 16-bit fixed point, with the bits of
/// Pillow's convert("L"): (19595 R + 38470 G + 7471 B + 32768) >> 16. RGB of a grey image repeats
/// its value. kAsStored and a format the image already has cost nothing.
Image to_format(Image image, PixelFormat format);

}  // namespace espalier
