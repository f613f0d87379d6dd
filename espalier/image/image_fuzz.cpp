// Fuzz target: whatever bytes an image file holds, decoding gives an image within the limits or
// Error(kInput).
#include <cstdint>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/image/decode.h"
#include "espalier/image/encode.h"
#include "espalier/image/testing_internal.h"

namespace {

using Input = std::vector<std::uint8_t>;

constexpr espalier::ImageLimits kLimits{
    .max_bytes = 1 << 20, .max_width = 2048, .max_height = 2048, .max_pixels = 1 << 18};

[[noreturn]] void inconsistent() { __builtin_trap(); }

void check(const espalier::Image& image) {
  if (image.width < 1 || image.height < 1 || image.width * image.height > kLimits.max_pixels)
    inconsistent();
  if (image.channels != 1 && image.channels != 3) inconsistent();
  if (image.pixels.size() != static_cast<std::size_t>(image.width * image.height * image.channels))
    inconsistent();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  using espalier::AlphaRule;
  using espalier::PixelFormat;
  try {
    check(espalier::decode_image(bytes, "fuzz",
                                 {PixelFormat::kAsStored, AlphaRule::kOverWhite, kLimits}));
    const auto rgb =
        espalier::decode_image(bytes, "fuzz", {PixelFormat::kRgb, AlphaRule::kDrop, kLimits});
    const auto info = espalier::read_image_info(bytes, "fuzz", kLimits);
    if (rgb.channels != 3 || info.width != rgb.width || info.height != rgb.height) inconsistent();
  } catch (const espalier::Error& error) {
    if (error.kind() != espalier::ErrorKind::kInput) inconsistent();
  }
  return 0;
}

extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds) {
  using espalier::testing::pattern;
  const auto add = [&](const std::string& file) { seeds.emplace_back(file.begin(), file.end()); };
  for (const int channels : {1, 3, 4}) {
    for (const bool progressive : {false, true}) {
      add(espalier::testing::encode_jpeg(pattern(19, 11, channels), 19, 11, channels,
                                         {.progressive = progressive, .quality = 60}));
    }
  }
  add(espalier::encode_png({9, 6, 1, pattern(9, 6, 1), 0}));
  add(espalier::encode_png({9, 6, 3, pattern(9, 6, 3), 0}));
  add(espalier::testing::encode_png_rows(
      {pattern(5, 1, 8), pattern(5, 1, 8)}, 5,
      {.depth = 16, .colour_type = PNG_COLOR_TYPE_RGBA, .interlaced = true}));
  add(espalier::testing::encode_png_rows({{0b01100000}}, 3,
                                         {.depth = 2,
                                          .colour_type = PNG_COLOR_TYPE_PALETTE,
                                          .palette = {{9, 8, 7}, {1, 2, 3}, {4, 5, 6}},
                                          .palette_alpha = {0, 128}}));
  add(espalier::testing::encode_webp(pattern(9, 6, 4), 9, 6, 4));
  add(espalier::testing::encode_lossy_webp(pattern(19, 11, 3), 19, 11, 50));
}
