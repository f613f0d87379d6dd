// WebP stills through libwebp, which reports by status codes and decodes into our memory.
#include <webp/decode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/image/decoders_internal.h"

namespace espalier {
namespace {

[[noreturn]] void fail(std::string_view name, VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      throw Error(ErrorKind::kInput, name, "the WebP data end early");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      throw Error(ErrorKind::kInput, name, "a WebP file with a feature that libwebp does not know");
    case VP8_STATUS_OUT_OF_MEMORY:
      throw Error(ErrorKind::kInput, name, "damaged WebP: it needs more memory than there is");
    default:
      throw Error(ErrorKind::kInput, name, "damaged WebP: its bits do not decode");
  }
}

const std::uint8_t* data_of(ImageBytes bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

}  // namespace

ImageInfo read_webp_info(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  WebPBitstreamFeatures found;
  const VP8StatusCode status = WebPGetFeatures(data_of(bytes), bytes.size(), &found);
  if (status != VP8_STATUS_OK) fail(name, status);
  check_image_size(name, found.width, found.height, limits);
  if (found.has_animation != 0)
    throw Error(ErrorKind::kInput, name, "is an animated WebP, expected a still image");
  return {ImageFormat::kWebp, found.width, found.height, 3, found.has_alpha != 0};
}

Image read_webp(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  const ImageInfo info = read_webp_info(bytes, name, limits);
  Image image{info.width, info.height, info.alpha ? 4 : 3, {}, 0};
  image.pixels.resize(static_cast<std::size_t>(image.width * image.height * image.channels));
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0)
    throw Error(ErrorKind::kEnvironment, "libwebp", "is of another version than its header");
  config.output.colorspace = info.alpha ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {image.pixels.data(), static_cast<int>(image.width * image.channels),
                          image.pixels.size()};
  const VP8StatusCode status = WebPDecode(data_of(bytes), bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) fail(name, status);
  return image;
}

}  // namespace espalier
