// Known pixels through every kind of file, and every way in which a file can be bad.
#include "espalier/image/decode.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/image/encode.h"
#include "espalier/image/testing_internal.h"

namespace espalier {
namespace {

using testing::bytes_of;
using Pixels = std::vector<std::uint8_t>;

Image decode(const std::string& file, const DecodeOptions& options = {}) {
  return decode_image(bytes_of(file), "x", options);
}

std::string message_of(const std::string& file, const DecodeOptions& options = {}) {
  try {
    decode(file, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    return error.what();
  }
  return "decoded";
}

int largest_difference(const Pixels& a, const Pixels& b) {
  EXPECT_EQ(a.size(), b.size());
  int largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(int{a[i]} - int{b[i]}));
  return largest;
}

/// Smooth, so that a lossy file comes close.
Pixels ramp(int width, int height) {
  Pixels pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      pixels.push_back(static_cast<std::uint8_t>(4 * x));
      pixels.push_back(static_cast<std::uint8_t>(4 * y));
      pixels.push_back(static_cast<std::uint8_t>(100));
    }
  }
  return pixels;
}

Pixels flat(int count, const Pixels& colour) {
  Pixels pixels;
  for (int i = 0; i < count; ++i) pixels.insert(pixels.end(), colour.begin(), colour.end());
  return pixels;
}

TEST(DecodeImage, PngComesBackAsItWas) {
  for (const int channels : {1, 3}) {
    const Pixels pixels = testing::pattern(13, 5, channels);
    const std::string file = encode_png({13, 5, channels, pixels, 0});
    const Image image = decode(file, {.format = PixelFormat::kAsStored});
    EXPECT_EQ(image.width, 13);
    EXPECT_EQ(image.height, 5);
    EXPECT_EQ(image.channels, channels);
    EXPECT_EQ(image.pixels, pixels);
    EXPECT_EQ(image.warnings, 0);
  }
}

TEST(DecodeImage, GreyAndRgbTurnIntoEachOther) {
  const std::string grey = encode_png({2, 1, 1, {0, 200}, 0});
  EXPECT_EQ(decode(grey).pixels, (Pixels{0, 0, 0, 200, 200, 200}));
  // 19595 * 255 + 32768 >> 16 = 76; 38470: 150; 7471: 29; the sum of the weights is 65536.
  const std::string rgb =
      encode_png({4, 1, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}, 0});
  const Image image = decode(rgb, {.format = PixelFormat::kGrey});
  EXPECT_EQ(image.channels, 1);
  EXPECT_EQ(image.pixels, (Pixels{76, 150, 29, 255}));
}

TEST(DecodeImage, PngOf16BitsIsScaledWithRounding) {
  // 0x01ff = 511: 511 / 257 = 1.99, so 2 and not the high byte 1. 0x8080 = 128 * 257.
  const std::string file = testing::encode_png_rows(
      {{0x01, 0xff, 0x80, 0x80, 0xff, 0xff}}, 3, {.depth = 16, .colour_type = PNG_COLOR_TYPE_GRAY});
  EXPECT_EQ(decode(file, {.format = PixelFormat::kAsStored}).pixels, (Pixels{2, 128, 255}));
}

TEST(DecodeImage, PngPaletteAndBits) {
  const std::string palette =
      testing::encode_png_rows({{0b01100000}}, 3,
                               {.depth = 2,
                                .colour_type = PNG_COLOR_TYPE_PALETTE,
                                .palette = {{9, 8, 7}, {1, 2, 3}, {4, 5, 6}}});
  EXPECT_EQ(decode(palette).pixels, (Pixels{1, 2, 3, 4, 5, 6, 9, 8, 7}));
  EXPECT_EQ(read_image_info(bytes_of(palette), "x").channels, 3);
  const std::string bits =
      testing::encode_png_rows({{0b10100000}}, 4, {.depth = 1, .colour_type = PNG_COLOR_TYPE_GRAY});
  EXPECT_EQ(decode(bits, {.format = PixelFormat::kAsStored}).pixels, (Pixels{255, 0, 255, 0}));
}

TEST(DecodeImage, AlphaIsDroppedOrBlendedOverWhite) {
  const std::string file = testing::encode_png_rows({{100, 0, 255, 128, 10, 20, 30, 0}}, 2,
                                                    {.colour_type = PNG_COLOR_TYPE_RGBA});
  EXPECT_TRUE(read_image_info(bytes_of(file), "x").alpha);
  EXPECT_EQ(decode(file).pixels, (Pixels{100, 0, 255, 10, 20, 30}));
  // (100 * 128 + 255 * 127) / 255 = 177.2; (0 + 255 * 127) / 255 = 127.
  const Pixels over{177, 127, 255, 255, 255, 255};
  EXPECT_EQ(decode(file, {.alpha = AlphaRule::kOverWhite}).pixels, over);
  const std::string webp = testing::encode_webp({100, 0, 255, 128, 10, 20, 30, 255}, 2, 1, 4);
  EXPECT_EQ(decode(webp, {.alpha = AlphaRule::kOverWhite}).pixels,
            (Pixels{177, 127, 255, 10, 20, 30}));
  const std::string grey =
      testing::encode_png_rows({{100, 128}}, 1, {.colour_type = PNG_COLOR_TYPE_GRAY_ALPHA});
  EXPECT_EQ(decode(grey, {PixelFormat::kAsStored, AlphaRule::kOverWhite, {}}).pixels, Pixels{177});
  const std::string palette = testing::encode_png_rows({{0b01000000}}, 2,
                                                       {.depth = 1,
                                                        .colour_type = PNG_COLOR_TYPE_PALETTE,
                                                        .palette = {{9, 9, 9}, {1, 2, 3}},
                                                        .palette_alpha = {255, 0}});
  EXPECT_EQ(decode(palette, {.alpha = AlphaRule::kOverWhite}).pixels,
            (Pixels{9, 9, 9, 255, 255, 255}));
}

TEST(DecodeImage, InterlacedPngIsThePlainOne) {
  const Pixels pixels = testing::pattern(19, 11, 3);
  std::vector<Pixels> rows;
  for (int y = 0; y < 11; ++y)
    rows.emplace_back(pixels.begin() + y * 57, pixels.begin() + (y + 1) * 57);
  EXPECT_EQ(decode(testing::encode_png_rows(rows, 19, {.interlaced = true})).pixels, pixels);
}

TEST(DecodeImage, JpegComesClose) {
  const Pixels pixels = ramp(48, 40);
  for (const bool progressive : {false, true}) {
    const std::string file =
        testing::encode_jpeg(pixels, 48, 40, 3, {.progressive = progressive, .quality = 98});
    const Image image = decode(file);
    EXPECT_EQ(image.width, 48);
    EXPECT_EQ(image.height, 40);
    EXPECT_LE(largest_difference(image.pixels, pixels), 6);
  }
  // A flat block is its DC coefficient alone, so the value is exact.
  const std::string grey = testing::encode_jpeg(flat(64, {128}), 8, 8, 1);
  EXPECT_EQ(decode(grey, {.format = PixelFormat::kAsStored}).pixels, flat(64, {128}));
  EXPECT_EQ(decode(grey).pixels, flat(64, {128, 128, 128}));
}

TEST(DecodeImage, CmykJpegIsLightOrInkByItsMarker) {
  // Flat multiples of 8 around 128 survive quality 100 exactly.
  const Pixels inks = flat(64, {200, 128, 0, 255});
  const Pixels light = decode(testing::encode_jpeg(inks, 8, 8, 4, {.quality = 100})).pixels;
  EXPECT_LE(largest_difference(light, flat(64, {200, 128, 0})), 1);
  const Pixels ink = decode(testing::encode_jpeg(flat(64, {200, 128, 0, 0}), 8, 8, 4,
                                                 {.adobe = false, .quality = 100}))
                         .pixels;
  EXPECT_LE(largest_difference(ink, flat(64, {55, 127, 255})), 1);
}

TEST(DecodeImage, WebpLosslessIsExactAndLossyClose) {
  const Pixels pixels = testing::pattern(9, 6, 3);
  const std::string file = testing::encode_webp(pixels, 9, 6, 3);
  EXPECT_EQ(decode(file).pixels, pixels);
  EXPECT_EQ(read_image_info(bytes_of(file), "x").format, ImageFormat::kWebp);
  const Pixels smooth = ramp(48, 40);
  const std::string lossy = testing::encode_lossy_webp(smooth, 48, 40, 100);
  EXPECT_LE(largest_difference(decode(lossy).pixels, smooth), 12);
}

TEST(ReadImageInfo, TellsFormatSizeAndChannels) {
  const std::string grey = testing::encode_jpeg(flat(12, {7}), 4, 3, 1);
  const ImageInfo info = read_image_info(bytes_of(grey), "x");
  EXPECT_EQ(info.format, ImageFormat::kJpeg);
  EXPECT_EQ(info.width, 4);
  EXPECT_EQ(info.height, 3);
  EXPECT_EQ(info.channels, 1);
  EXPECT_FALSE(info.alpha);
  EXPECT_EQ(to_string(info.format), "JPEG");
}

TEST(DecodeImage, RefusesWhatIsNoImage) {
  EXPECT_EQ(message_of(""), "x: is empty, expected an image");
  EXPECT_EQ(message_of("GIF89a"),
            "x: is not a JPEG, PNG or WebP image (it begins with 47 49 46 38)");
  EXPECT_EQ(message_of("B"), "x: is not a JPEG, PNG or WebP image (it begins with 42)");
}

TEST(DecodeImage, RefusesBeyondTheLimits) {
  const std::string file = encode_png({13, 5, 3, testing::pattern(13, 5, 3), 0});
  EXPECT_EQ(message_of(file, {.limits = {.max_bytes = 20}}),
            "x: is " + std::to_string(file.size()) +
                " B, larger than the limit of 20 B for an image file");
  EXPECT_EQ(message_of(file, {.limits = {.max_width = 12}}),
            "x: says it is 13 x 5 pixels; the limit is 12 x 16384");
  EXPECT_EQ(message_of(file, {.limits = {.max_height = 4}}),
            "x: says it is 13 x 5 pixels; the limit is 16384 x 4");
  EXPECT_EQ(message_of(file, {.limits = {.max_pixels = 64}}),
            "x: says it is 13 x 5 = 65 pixels; the limit is 64");
  EXPECT_EQ(decode(file, {.limits = {.max_pixels = 65}}).width, 13);
  // A header of 60,000 x 60,000 pixels is refused although the file is tiny.
  std::string jpeg = testing::encode_jpeg(flat(64, {1, 2, 3}), 8, 8, 3);
  const std::size_t frame = jpeg.find("\xff\xc0");
  jpeg.replace(frame + 5, 4, "\xea\x60\xea\x60");
  EXPECT_EQ(message_of(jpeg), "x: says it is 60000 x 60000 pixels; the limit is 16384 x 16384");
}

TEST(DecodeImage, RefusesEveryTruncation) {
  const std::vector<std::string> files{
      testing::encode_jpeg(testing::pattern(16, 16, 3), 16, 16, 3),
      testing::encode_jpeg(testing::pattern(16, 16, 3), 16, 16, 3, {.progressive = true}),
      encode_png({9, 6, 3, testing::pattern(9, 6, 3), 0}),
      testing::encode_webp(testing::pattern(9, 6, 3), 9, 6, 3)};
  for (const std::string& file : files) {
    EXPECT_EQ(message_of(file), "decoded");
    for (std::size_t size = 0; size < file.size(); ++size)
      EXPECT_NE(message_of(file.substr(0, size)), "decoded") << size << " of " << file.size();
  }
  EXPECT_EQ(message_of(files[0].substr(0, files[0].size() - 2)), "x: the JPEG data end early");
  EXPECT_EQ(message_of(files[2].substr(0, files[2].size() - 2)), "x: the PNG data end early");
  EXPECT_EQ(message_of(files[3].substr(0, files[3].size() / 2)), "x: the WebP data end early");
}

TEST(DecodeImage, NamesDamage) {
  std::string png = encode_png({9, 6, 3, testing::pattern(9, 6, 3), 0});
  png[png.find("IEND") - 5] ^= 0x10;  // the last byte of the checksum of IDAT
  EXPECT_EQ(message_of(png), "x: damaged PNG: IDAT: CRC error");
  std::string webp = testing::encode_webp(testing::pattern(9, 6, 3), 9, 6, 3);
  webp[12] = 'Q';
  EXPECT_EQ(message_of(webp), "x: damaged WebP: its bits do not decode");
  std::string jpeg = testing::encode_jpeg(flat(64, {1, 2, 3}), 8, 8, 3);
  jpeg.replace(jpeg.find("\xff\xdb"), 2, "\xff\xfe");  // a table becomes a comment
  EXPECT_EQ(message_of(jpeg), "x: damaged JPEG: Quantization table 0x00 was not defined");
}

TEST(DecodeImage, CountsOdditiesThatCostNoPixel) {
  std::string jpeg = testing::encode_jpeg(testing::pattern(16, 16, 3), 16, 16, 3);
  const Image clean = decode(jpeg);
  jpeg.insert(jpeg.find("\xff\xc4"), "abc");
  const Image odd = decode(jpeg);
  EXPECT_EQ(odd.warnings, 1);
  EXPECT_EQ(odd.pixels, clean.pixels);
}

TEST(DecodeImage, RefusesAJpegOfEndlessScans) {
  std::string file =
      testing::encode_jpeg(testing::pattern(16, 16, 1), 16, 16, 1, {.progressive = true});
  const std::string scan =
      file.substr(file.rfind("\xff\xda"), file.size() - 2 - file.rfind("\xff\xda"));
  std::string few = file, many = file;
  for (int i = 0; i < 20; ++i) few.insert(few.size() - 2, scan);
  for (int i = 0; i < 300; ++i) many.insert(many.size() - 2, scan);
  EXPECT_EQ(decode(few).pixels, decode(file).pixels);
  EXPECT_EQ(message_of(many), "x: damaged JPEG: more than 256 scans");
}

TEST(EncodePng, RefusesWhatDoesNotFit) {
  try {
    encode_png({2, 2, 3, {1, 2, 3}, 0});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(),
                 "image: 2 x 2 pixels with 3 channels in 3 bytes cannot be written as PNG");
  }
}

}  // namespace
}  // namespace espalier
