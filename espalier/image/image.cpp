// Grey to RGB and back.
#include "espalier/image/image.h"

#include <cstddef>
#include <utility>

#include "espalier/base/error.h"

namespace espalier {
namespace {

Image to_grey(const Image& rgb) {
  Image grey{rgb.width, rgb.height, 1, {}, rgb.warnings};
  grey.pixels.resize(rgb.pixels.size() / 3);
  for (std::size_t i = 0; i < grey.pixels.size(); ++i) {
    const std::uint8_t* p = rgb.pixels.data() + 3 * i;
    // The weights add up to 65536, so 255 stays 255.
    grey.pixels[i] =
        static_cast<std::uint8_t>((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
  }
  return grey;
}

Image to_rgb(const Image& grey) {
  Image rgb{grey.width, grey.height, 3, {}, grey.warnings};
  rgb.pixels.resize(grey.pixels.size() * 3);
  for (std::size_t i = 0; i < rgb.pixels.size(); ++i) rgb.pixels[i] = grey.pixels[i / 3];
  return rgb;
}

}  // namespace

Image to_format(Image image, PixelFormat format) {
  ESPALIER_ASSERT(image.channels == 1 || image.channels == 3);
  if (format == PixelFormat::kGrey && image.channels == 3) return to_grey(image);
  if (format == PixelFormat::kRgb && image.channels == 1) return to_rgb(image);
  return image;
}

}  // namespace espalier
