// Small files of every kind made in memory, for tests and as seeds of the fuzzer. Not an encoder
// for users: errors of the libraries end the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

namespace espalier::testing {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// A pattern without symmetry: [height, width, channels].
inline std::vector<std::uint8_t> pattern(int width, int height, int channels) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c)
        pixels.push_back(static_cast<std::uint8_t>(x * 7 + y * 13 + c * 50));
    }
  }
  return pixels;
}

struct JpegKind {
  bool progressive = false;
  bool adobe = true;  // of CMYK: with the marker that says inverted
  int quality = 90;
};

/// `channels`: 1 grey, 3 RGB (stored as YCbCr), 4 CMYK.
inline std::string encode_jpeg(const std::vector<std::uint8_t>& pixels, int width, int height,
                               int channels, JpegKind kind = {}) {
  // DC, then AC, both complete at once: such a scan may be repeated without breaking a rule.
  static const jpeg_scan_info kScans[] = {{1, {0, 0, 0, 0}, 0, 0, 0, 0},
                                          {1, {0, 0, 0, 0}, 1, 63, 0, 0}};
  jpeg_compress_struct state;
  jpeg_error_mgr errors;
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &memory, &size);
  state.image_width = static_cast<JDIMENSION>(width);
  state.image_height = static_cast<JDIMENSION>(height);
  state.input_components = channels;
  state.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&state);
  jpeg_set_quality(&state, kind.quality, TRUE);
  if (kind.progressive && channels == 1) {
    state.scan_info = kScans;
    state.num_scans = 2;
  } else if (kind.progressive) {
    jpeg_simple_progression(&state);
  }
  if (!kind.adobe) state.write_Adobe_marker = FALSE;
  jpeg_start_compress(&state, TRUE);
  while (state.next_scanline < state.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(pixels.data()) +
                   state.next_scanline * static_cast<std::size_t>(width * channels);
    jpeg_write_scanlines(&state, &row, 1);
  }
  jpeg_finish_compress(&state);
  jpeg_destroy_compress(&state);
  std::string out(reinterpret_cast<const char*>(memory), size);
  std::free(memory);
  return out;
}

struct PngKind {
  int depth = 8;
  int colour_type = PNG_COLOR_TYPE_RGB;
  bool interlaced = false;
  std::vector<png_color> palette = {};
  std::vector<std::uint8_t> palette_alpha = {};
};

/// `rows`: as the file stores them (packed bits, 16-bit samples high byte first).
inline std::string encode_png_rows(const std::vector<std::vector<std::uint8_t>>& rows, int width,
                                   const PngKind& kind) {
  std::string out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &out,
      [](png_structp p, png_bytep bytes, std::size_t size) {
        static_cast<std::string*>(png_get_io_ptr(p))
            ->append(reinterpret_cast<const char*>(bytes), size);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(rows.size()),
               kind.depth, kind.colour_type,
               kind.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!kind.palette.empty())
    png_set_PLTE(png, info, kind.palette.data(), static_cast<int>(kind.palette.size()));
  if (!kind.palette_alpha.empty()) {
    png_set_tRNS(png, info, kind.palette_alpha.data(), static_cast<int>(kind.palette_alpha.size()),
                 nullptr);
  }
  png_write_info(png, info);
  std::vector<png_bytep> pointers;
  for (const auto& row : rows) pointers.push_back(const_cast<png_bytep>(row.data()));
  if (kind.interlaced) png_set_interlace_handling(png);
  png_write_image(png, pointers.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return out;
}

/// Lossless; `channels` 3 or 4.
inline std::string encode_webp(const std::vector<std::uint8_t>& pixels, int width, int height,
                               int channels) {
  std::uint8_t* memory = nullptr;
  const std::size_t size =
      channels == 4 ? WebPEncodeLosslessRGBA(pixels.data(), width, height, width * 4, &memory)
                    : WebPEncodeLosslessRGB(pixels.data(), width, height, width * 3, &memory);
  std::string out(reinterpret_cast<const char*>(memory), size);
  WebPFree(memory);
  return out;
}

/// Lossy RGB.
inline std::string encode_lossy_webp(const std::vector<std::uint8_t>& pixels, int width, int height,
                                     float quality) {
  std::uint8_t* memory = nullptr;
  const std::size_t size = WebPEncodeRGB(pixels.data(), width, height, width * 3, quality, &memory);
  std::string out(reinterpret_cast<const char*>(memory), size);
  WebPFree(memory);
  return out;
}

}  // namespace espalier::testing
