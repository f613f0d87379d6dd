// JPEG, PNG and WebP files to pixels, within limits that hold before memory is taken. Files are
// taken to be hostile: whatever the bytes are, the answer is an Image or Error(kInput).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "espalier/image/image.h"

namespace espalier {

enum class ImageFormat : std::uint8_t { kJpeg, kPng, kWebp };

/// "JPEG", "PNG", "WebP".
std::string_view to_string(ImageFormat format);

/// The format by its first bytes, whatever the file is called; nothing when it is none of ours.
std::optional<ImageFormat> find_image_format(std::span<const std::byte> bytes);

/// What a file may ask for. Checked against its header, before pixels are allocated.
struct ImageLimits {
  std::uint64_t max_bytes = std::uint64_t{64} << 20;  // of the file
  std::int64_t max_width = 16384, max_height = 16384;
  std::int64_t max_pixels = std::int64_t{1} << 26;
};

/// Transparency is not kept. kDrop takes the colours as stored, as Pillow's convert("RGB") and so
/// every classifier trained through torchvision; kOverWhite blends them over white paper.
enum class AlphaRule : std::uint8_t { kDrop, kOverWhite };

struct DecodeOptions {
  PixelFormat format = PixelFormat::kRgb;
  AlphaRule alpha = AlphaRule::kDrop;
  ImageLimits limits = {};
};

/// What the header of a file says.
struct ImageInfo {
  ImageFormat format = ImageFormat::kPng;
  std::int64_t width = 0, height = 0;
  std::int64_t channels = 0;  // of its colours: 1 or 3 (palette and CMYK count as 3)
  bool alpha = false;
};

/// Reads the header alone. `name` is the subject of errors, usually the file. Throws Error(kInput)
/// for bytes of no known format, damaged headers and sizes beyond the limits.
ImageInfo read_image_info(std::span<const std::byte> bytes, std::string_view name,
                          const ImageLimits& limits = {});

/// Decodes a whole image.
///
/// JPEG: baseline and progressive, grey, YCbCr, RGB, CMYK and YCCK (Adobe's are stored inverted),
/// with the accurate integer DCT and smooth chroma upsampling, Pillow's and torchvision's choice.
/// PNG: every colour type and depth, interlaced or not; 16 bits are scaled to 8 with rounding.
/// WebP: lossy and lossless stills; an animation is refused.
/// Not applied, as in Pillow's open() and torchvision: EXIF orientation, ICC profiles, gamma.
///
/// Throws Error(kInput), subject `name`, with the reason: unknown format, beyond a limit,
/// truncated, damaged. A file that ends early or whose data do not decode is refused even where its
/// library would fill the gap with grey; only oddities that change no pixel (bytes between two JPEG
/// markers, a bad checksum in a PNG text chunk) pass, counted in Image::warnings.
/// Memory: the pixels, once or twice; a progressive JPEG about 6 bytes a pixel more. Thread-safe.
Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeOptions& options = {});

}  // namespace espalier
