// Pixels to PNG files.
#pragma once

#include <string>

#include "espalier/image/image.h"

namespace espalier {

/// The bytes of an 8-bit grey or RGB PNG file; decode_image gives the same pixels back. Throws
/// Error(kInput) for an image without pixels, with other than 1 or 3 channels, or whose buffer does
/// not fit its size.
std::string encode_png(const Image& image);

}  // namespace espalier
