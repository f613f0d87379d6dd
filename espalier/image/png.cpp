// PNG through libpng. As in jpeg.cpp, each stage that calls the library has its own setjmp and
// holds no object with a destructor; exceptions are thrown outside.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <png.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/image/decoders_internal.h"
#include "espalier/image/encode.h"

namespace espalier {
namespace {

constexpr std::string_view kEndsEarly = "the PNG data end early";

/// What the callbacks know about a file being read or written.
struct PngFile {
  const std::byte* next = nullptr;  // reading
  std::size_t left = 0;
  std::string* out = nullptr;  // writing
  char message[256] = "";
  std::int64_t warnings = 0;
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto& file = *static_cast<PngFile*>(png_get_error_ptr(png));
  std::snprintf(file.message, sizeof file.message, "%s", message);
  png_longjmp(png, 1);
}

void on_warning(png_structp png, png_const_charp) {
  ++static_cast<PngFile*>(png_get_error_ptr(png))->warnings;
}

void on_read(png_structp png, png_bytep target, std::size_t size) {
  auto& file = *static_cast<PngFile*>(png_get_io_ptr(png));
  if (size > file.left) png_error(png, kEndsEarly.data());
  std::memcpy(target, file.next, size);
  file.next += size;
  file.left -= size;
}

class PngReader {
 public:
  PngReader(ImageBytes bytes, std::string_view name) : name_(name) {
    file_.next = bytes.data();
    file_.left = bytes.size();
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &file_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    const bool read = info_ != nullptr && read_header();
    if (!read) {
      close();
      fail();
    }
  }
  ~PngReader() { close(); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  std::int64_t width() const { return png_get_image_width(png_, info_); }
  std::int64_t height() const { return png_get_image_height(png_, info_); }
  bool has_colour() const { return (png_get_color_type(png_, info_) & PNG_COLOR_MASK_COLOR) != 0; }
  bool has_alpha() const {
    return (png_get_color_type(png_, info_) & PNG_COLOR_MASK_ALPHA) != 0 ||
           png_get_valid(png_, info_, PNG_INFO_tRNS) != 0;
  }
  std::int64_t warnings() const { return file_.warnings; }

  /// Chooses 8-bit samples without palette; afterwards row_bytes() holds for them.
  void choose_output() {
    if (!set_transforms()) fail();
  }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  std::int64_t channels() const { return png_get_channels(png_, info_); }
  void read_rows(std::vector<png_bytep>& rows) {
    if (!read_all(rows.data())) fail();
  }

 private:
  [[noreturn]] void fail() const {
    if (file_.message == kEndsEarly) throw Error(ErrorKind::kInput, name_, kEndsEarly);
    throw Error(ErrorKind::kInput, name_, format("damaged PNG: {}", file_.message));
  }
  void close() { png_destroy_read_struct(&png_, &info_, nullptr); }

  bool read_header() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, &file_, on_read);
    // Nothing is allocated by size up to png_read_info; check_image_size has the limits.
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_read_info(png_, info_);
    return true;
  }
  bool set_transforms() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_expand(png_);  // palette to RGB, 1-4 bits to 8, a transparent colour to alpha
    png_set_scale_16(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }
  bool read_all(png_bytepp rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }

  std::string name_;
  PngFile file_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

ImageInfo info_of(const PngReader& reader, std::string_view name, const ImageLimits& limits) {
  check_image_size(name, reader.width(), reader.height(), limits);
  return {ImageFormat::kPng, reader.width(), reader.height(), reader.has_colour() ? 3 : 1,
          reader.has_alpha()};
}

void on_write(png_structp png, png_bytep bytes, std::size_t size) {
  std::string& out = *static_cast<PngFile*>(png_get_io_ptr(png))->out;
  out.append(reinterpret_cast<const char*>(bytes), size);
}

void on_flush(png_structp) {}

bool write_rows(png_structp png, png_infop info, PngFile* file, const Image* image,
                png_bytepp rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_write_fn(png, file, on_write, on_flush);
  png_set_IHDR(png, info, static_cast<png_uint_32>(image->width),
               static_cast<png_uint_32>(image->height), 8,
               image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  png_write_image(png, rows);
  png_write_end(png, info);
  return true;
}

}  // namespace

ImageInfo read_png_info(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  return info_of(PngReader(bytes, name), name, limits);
}

Image read_png(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  PngReader reader(bytes, name);
  const ImageInfo info = info_of(reader, name, limits);
  reader.choose_output();
  Image image{info.width, info.height, reader.channels(), {}, 0};
  const std::size_t stride = reader.row_bytes();
  ESPALIER_ASSERT(stride == static_cast<std::size_t>(image.width * image.channels));
  image.pixels.resize(static_cast<std::size_t>(image.height) * stride);
  std::vector<png_bytep> rows(static_cast<std::size_t>(image.height));
  for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = image.pixels.data() + y * stride;
  reader.read_rows(rows);
  image.warnings = reader.warnings();
  return image;
}

std::string encode_png(const Image& image) {
  const std::int64_t expected = image.width * image.height * image.channels;
  if (image.width < 1 || image.height < 1 || (image.channels != 1 && image.channels != 3) ||
      image.pixels.size() != static_cast<std::size_t>(expected)) {
    throw Error(ErrorKind::kInput, "image",
                format("{} x {} pixels with {} channels in {} bytes cannot be written as PNG",
                       image.width, image.height, image.channels, image.pixels.size()));
  }
  std::vector<png_bytep> rows(static_cast<std::size_t>(image.height));
  for (std::size_t y = 0; y < rows.size(); ++y) {
    // libpng takes rows as non-const and does not write to them.
    rows[y] = const_cast<png_bytep>(image.pixels.data()) +
              y * static_cast<std::size_t>(image.width * image.channels);
  }
  std::string out;
  PngFile file;
  file.out = &out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &file, on_error, on_warning);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  const bool written = info != nullptr && write_rows(png, info, &file, &image, rows.data());
  png_destroy_write_struct(&png, &info);
  if (!written)
    throw Error(ErrorKind::kInput, "image", format("cannot be written as PNG: {}", file.message));
  return out;
}

}  // namespace espalier
