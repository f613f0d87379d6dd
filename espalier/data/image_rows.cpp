// Bytes of a row to pixels: decoding, grey and RGB, resizing.
#include <cmath>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/data/image_rows_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kCifarSide = 32;

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

Image cifar_image(const std::string& planes) {
  Image image{kCifarSide, kCifarSide, 3, {}, 0};
  const std::size_t count = kCifarSide * kCifarSide;
  image.pixels.resize(3 * count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t c = 0; c < 3; ++c)
      image.pixels[3 * i + c] = static_cast<std::uint8_t>(planes[c * count + i]);
  }
  return image;
}

Image read_row(const ImageIndex& index, const ImageRow& row, const ImageSetOptions& options) {
  const DecodeOptions decode{PixelFormat::kAsStored, options.alpha, options.limits};
  switch (index.source) {
    case RowSource::kFile: {
      const std::string bytes = read_file(index.path / row.file, options.limits.max_bytes);
      return decode_image(bytes_of(bytes), row.file, decode);
    }
    case RowSource::kEncoded:
      return decode_image(bytes_of(row.bytes), row.file, decode);
    case RowSource::kCifarRecord:
      break;
  }
  return cifar_image(row.bytes);
}

/// The shorter side to `resize`, then the middle crop x crop.
Image resized(const Image& image, std::int64_t resize, std::int64_t crop) {
  const std::int64_t shorter = std::min(image.width, image.height);
  const std::int64_t width = image.width * resize / shorter,
                     height = image.height * resize / shorter;
  at::Tensor pixels = at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()),
                                    {1, image.height, image.width, image.channels}, at::kByte)
                          .permute({0, 3, 1, 2});  // [1, c, h, w]
  if (width != image.width || height != image.height)
    pixels = at::_upsample_bilinear2d_aa(pixels, {height, width}, /*align_corners=*/false);
  // Python's round(): halves go to the even number, as torchvision's CenterCrop has them.
  const auto top =
      static_cast<std::int64_t>(std::nearbyint(static_cast<double>(height - crop) / 2));
  const auto left =
      static_cast<std::int64_t>(std::nearbyint(static_cast<double>(width - crop) / 2));
  pixels = pixels.slice(2, top, top + crop).slice(3, left, left + crop);
  const at::Tensor packed = pixels.permute({0, 2, 3, 1}).contiguous();  // [1, crop, crop, c]
  const auto* data = packed.const_data_ptr<std::uint8_t>();
  return {crop, crop, image.channels, {data, data + packed.numel()}, image.warnings};
}

/// "3 channels (RGB)", "1 channel (grey)".
std::string describe_channels(std::int64_t channels) {
  return channels == 1 ? "1 channel (grey)" : format("{} channels (RGB)", channels);
}

}  // namespace

DecodedRow decode_row(const ImageIndex& index, std::int64_t row, const ImageSetOptions& options) {
  const ImageRow& entry = index.rows[static_cast<std::size_t>(row)];
  DecodedRow result;
  try {
    result.image = read_row(index, entry, options);
  } catch (const Error& error) {
    result.fault = RowFault::kBroken;
    result.problem = format("{}: {}", entry.file, error.message());
    return result;
  }
  if (result.image.channels != options.channels && options.grey == GreyRule::kRefuse) {
    result.fault = RowFault::kChannels;
    result.problem =
        format("{} has {}, expected {}", entry.file, describe_channels(result.image.channels),
               describe_channels(options.channels));
    return result;
  }
  result.image = to_format(std::move(result.image),
                           options.channels == 1 ? PixelFormat::kGrey : PixelFormat::kRgb);
  if (options.resize > 0) {
    result.image =
        resized(result.image, options.resize, options.crop > 0 ? options.crop : options.resize);
  }
  return result;
}

}  // namespace espalier
