// What the three decoders share: each turns bytes into an image whose alpha, if any, is still
// there; decode.cpp checks the format, drops or blends alpha and converts.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "espalier/image/decode.h"

namespace espalier {

using ImageBytes = std::span<const std::byte>;

/// Error(kInput) naming the size and the limit it breaks; nothing is allocated before this.
void check_image_size(std::string_view name, std::int64_t width, std::int64_t height,
                      const ImageLimits& limits);

/// Headers; the size is checked.
ImageInfo read_jpeg_info(ImageBytes bytes, std::string_view name, const ImageLimits& limits);
ImageInfo read_png_info(ImageBytes bytes, std::string_view name, const ImageLimits& limits);
ImageInfo read_webp_info(ImageBytes bytes, std::string_view name, const ImageLimits& limits);

/// Pixels with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels.
Image read_jpeg(ImageBytes bytes, std::string_view name, const ImageLimits& limits);
Image read_png(ImageBytes bytes, std::string_view name, const ImageLimits& limits);
Image read_webp(ImageBytes bytes, std::string_view name, const ImageLimits& limits);

}  // namespace espalier
