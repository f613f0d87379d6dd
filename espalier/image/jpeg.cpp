// JPEG through libjpeg-turbo. The library reports errors by a callback that must not return, so
// each stage below is a member function that calls setjmp, holds no object with a destructor, and
// returns false when the library jumped back; exceptions are thrown outside of them.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>

// jpeglib.h needs FILE and size_t declared before it.
#include <jerror.h>
#include <jpeglib.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/image/decoders_internal.h"

namespace espalier {
namespace {

// A progressive file may repeat scans without end, each costing a pass over the whole image.
constexpr int kMaxScans = 256;

struct JpegErrors {
  jpeg_error_mgr manager;  // first: the library's pointer to it is a pointer to this struct
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  std::int64_t warnings;
};

JpegErrors& errors_of(j_common_ptr state) { return *reinterpret_cast<JpegErrors*>(state->err); }

[[noreturn]] void on_error(j_common_ptr state) {
  (*state->err->format_message)(state, errors_of(state).message);
  std::longjmp(errors_of(state).jump, 1);
}

/// After these warnings the library goes on with all pixels as they were encoded. After any other
/// it makes up what is missing.
bool is_harmless(int code) {
  return code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_BOGUS_ICC ||
         code == JWRN_JFIF_MAJOR;
}

void on_message(j_common_ptr state, int level) {
  if (level >= 0) return;  // traces
  if (!is_harmless(state->err->msg_code)) on_error(state);
  ++errors_of(state).warnings;
}

void on_progress(j_common_ptr state) {
  if (reinterpret_cast<j_decompress_ptr>(state)->input_scan_number <= kMaxScans) return;
  state->err->msg_code = 0;
  std::snprintf(errors_of(state).message, JMSG_LENGTH_MAX, "more than %d scans", kMaxScans);
  std::longjmp(errors_of(state).jump, 1);
}

class JpegReader {
 public:
  JpegReader(ImageBytes bytes, std::string_view name) : name_(name) {
    std::memset(&state_, 0, sizeof state_);  // a struct that was never created can be destroyed
    errors_.message[0] = '\0';
    errors_.warnings = 0;
    state_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = on_error;
    errors_.manager.emit_message = on_message;
    if (!read_header(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size())) {
      jpeg_destroy_decompress(&state_);
      fail();
    }
  }
  ~JpegReader() { jpeg_destroy_decompress(&state_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  const jpeg_decompress_struct& state() const { return state_; }
  std::int64_t warnings() const { return errors_.warnings; }

  [[noreturn]] void fail() const {
    const int code = errors_.manager.msg_code;
    if (code == JWRN_JPEG_EOF || code == JERR_INPUT_EOF)
      throw Error(ErrorKind::kInput, name_, "the JPEG data end early");
    throw Error(ErrorKind::kInput, name_, format("damaged JPEG: {}", errors_.message));
  }

  /// `pixels`: height rows of `stride` bytes in `space`.
  void read_pixels(J_COLOR_SPACE space, std::uint8_t* pixels, std::size_t stride) {
    if (!decompress(space, pixels, stride)) fail();
  }

 private:
  bool read_header(const unsigned char* bytes, std::size_t size) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_decompress(&state_);
    jpeg_mem_src(&state_, bytes, size);
    jpeg_read_header(&state_, TRUE);
    return true;
  }

  bool decompress(J_COLOR_SPACE space, std::uint8_t* pixels, std::size_t stride) {
    if (setjmp(errors_.jump) != 0) return false;
    progress_.progress_monitor = on_progress;
    state_.progress = &progress_;
    state_.out_color_space = space;
    state_.dct_method = JDCT_ISLOW;
    // Coefficients of four whole channels and rows of work; beyond that the file is not what it
    // says.
    state_.mem->max_memory_to_use =
        (64L << 20) + 16L * static_cast<long>(state_.image_width) * state_.image_height;
    jpeg_start_decompress(&state_);
    while (state_.output_scanline < state_.output_height) {
      JSAMPROW row = pixels + state_.output_scanline * stride;
      jpeg_read_scanlines(&state_, &row, 1);
    }
    jpeg_finish_decompress(&state_);
    return true;
  }

  std::string name_;
  jpeg_decompress_struct state_;
  JpegErrors errors_;
  jpeg_progress_mgr progress_{};
};

/// The space to ask the library for: grey, RGB or CMYK.
J_COLOR_SPACE output_space(const JpegReader& reader, std::string_view name) {
  switch (reader.state().jpeg_color_space) {
    case JCS_GRAYSCALE:
      return JCS_GRAYSCALE;
    case JCS_RGB:
    case JCS_YCbCr:
      return JCS_RGB;
    case JCS_CMYK:
    case JCS_YCCK:
      return JCS_CMYK;
    default:
      throw Error(ErrorKind::kInput, name,
                  format("a JPEG of {} components, expected 1 (grey), 3 (colour) or 4 (CMYK)",
                         reader.state().num_components));
  }
}

ImageInfo info_of(const JpegReader& reader, std::string_view name, const ImageLimits& limits) {
  const std::int64_t width = reader.state().image_width, height = reader.state().image_height;
  check_image_size(name, width, height, limits);
  const std::int64_t channels = output_space(reader, name) == JCS_GRAYSCALE ? 1 : 3;
  return {ImageFormat::kJpeg, width, height, channels, false};
}

/// What is left of white light after the inks. Adobe's programs store the light that passes (255:
/// no ink) and say so by a marker; without it the numbers are amounts of ink.
std::vector<std::uint8_t> cmyk_to_rgb(const std::vector<std::uint8_t>& inks, bool inverted) {
  std::vector<std::uint8_t> rgb(inks.size() / 4 * 3);
  for (std::size_t i = 0; i < inks.size() / 4; ++i) {
    const std::uint8_t* p = inks.data() + 4 * i;
    const unsigned flip = inverted ? 0 : 255;
    for (std::size_t c = 0; c < 3; ++c)
      rgb[3 * i + c] = static_cast<std::uint8_t>(((p[c] ^ flip) * (p[3] ^ flip) + 127) / 255);
  }
  return rgb;
}

}  // namespace

ImageInfo read_jpeg_info(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  return info_of(JpegReader(bytes, name), name, limits);
}

Image read_jpeg(ImageBytes bytes, std::string_view name, const ImageLimits& limits) {
  JpegReader reader(bytes, name);
  const ImageInfo info = info_of(reader, name, limits);
  const J_COLOR_SPACE space = output_space(reader, name);
  const std::int64_t stride = info.width * (space == JCS_CMYK ? 4 : info.channels);
  Image image{info.width, info.height, info.channels, {}, 0};
  image.pixels.resize(static_cast<std::size_t>(info.height * stride));
  reader.read_pixels(space, image.pixels.data(), static_cast<std::size_t>(stride));
  if (space == JCS_CMYK)
    image.pixels = cmyk_to_rgb(image.pixels, reader.state().saw_Adobe_marker != 0);
  image.warnings = reader.warnings();
  return image;
}

}  // namespace espalier
