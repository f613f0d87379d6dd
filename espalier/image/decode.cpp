// Chooses the decoder by the first bytes and brings its pixels into the wanted form.
#include "espalier/image/decode.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/image/decoders_internal.h"

namespace espalier {
namespace {

bool has_at(ImageBytes bytes, std::size_t at, std::string_view magic) {
  return bytes.size() >= at + magic.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

/// The format, after the checks that need no decoder.
ImageFormat require_format(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  if (bytes.empty()) throw Error(ErrorKind::kInput, name, "is empty, expected an image");
  if (bytes.size() > limits.max_bytes) {
    throw Error(ErrorKind::kInput, name,
                format("is {}, larger than the limit of {} for an image file",
                       to_string(Bytes{static_cast<std::int64_t>(bytes.size())}),
                       to_string(Bytes{static_cast<std::int64_t>(limits.max_bytes)})));
  }
  const std::optional<ImageFormat> found = find_image_format(bytes);
  if (!found) {
    std::string first;
    for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 4); ++i)
      first += format("{}{:02x}", i == 0 ? "" : " ", std::to_integer<unsigned>(bytes[i]));
    throw Error(ErrorKind::kInput, name,
                format("is not a JPEG, PNG or WebP image (it begins with {})", first));
  }
  return *found;
}

/// Channels 2 and 4 become 1 and 3.
Image without_alpha(Image image, AlphaRule rule) {
  if (image.channels == 1 || image.channels == 3) return image;
  const auto from = static_cast<std::size_t>(image.channels), to = from - 1;
  const std::size_t count = image.pixels.size() / from;
  for (std::size_t i = 0; i < count; ++i) {  // in place: what is written was read before
    const std::uint8_t* source = image.pixels.data() + i * from;
    const unsigned alpha = rule == AlphaRule::kDrop ? 255 : source[to];
    std::uint8_t* target = image.pixels.data() + i * to;
    for (std::size_t c = 0; c < to; ++c)
      target[c] = static_cast<std::uint8_t>((source[c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  image.pixels.resize(count * to);
  image.channels = static_cast<std::int64_t>(to);
  return image;
}

}  // namespace

std::string_view to_string(ImageFormat format) {
  switch (format) {
    case ImageFormat::kJpeg:
      return "JPEG";
    case ImageFormat::kPng:
      return "PNG";
    case ImageFormat::kWebp:
      return "WebP";
  }
  return "?";
}

std::optional<ImageFormat> find_image_format(std::span<const std::byte> bytes) {
  if (has_at(bytes, 0, "\xff\xd8\xff")) return ImageFormat::kJpeg;
  if (has_at(bytes, 0, "\x89PNG\r\n\x1a\n")) return ImageFormat::kPng;
  if (has_at(bytes, 0, "RIFF") && has_at(bytes, 8, "WEBP")) return ImageFormat::kWebp;
  return std::nullopt;
}

void check_image_size(std::string_view name, std::int64_t width, std::int64_t height,
                      const ImageLimits& limits) {
  if (width < 1 || height < 1) {
    throw Error(ErrorKind::kInput, name, format("says it is {} x {} pixels", width, height));
  }
  if (width > limits.max_width || height > limits.max_height) {
    throw Error(ErrorKind::kInput, name,
                format("says it is {} x {} pixels; the limit is {} x {}", width, height,
                       limits.max_width, limits.max_height));
  }
  if (width > limits.max_pixels / height) {
    throw Error(ErrorKind::kInput, name,
                format("says it is {} x {} = {} pixels; the limit is {}", width, height,
                       format_count(width * height), format_count(limits.max_pixels)));
  }
}

ImageInfo read_image_info(std::span<const std::byte> bytes, std::string_view name,
                          const ImageLimits& limits) {
  switch (require_format(bytes, name, limits)) {
    case ImageFormat::kJpeg:
      return read_jpeg_info(bytes, name, limits);
    case ImageFormat::kPng:
      return read_png_info(bytes, name, limits);
    case ImageFormat::kWebp:
      break;
  }
  return read_webp_info(bytes, name, limits);
}

Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeOptions& options) {
  const auto pixels = [&] {
    switch (require_format(bytes, name, options.limits)) {
      case ImageFormat::kJpeg:
        return read_jpeg(bytes, name, options.limits);
      case ImageFormat::kPng:
        return read_png(bytes, name, options.limits);
      case ImageFormat::kWebp:
        break;
    }
    return read_webp(bytes, name, options.limits);
  };
  return to_format(without_alpha(pixels(), options.alpha), options.format);
}

}  // namespace espalier
