// TextSource over a mapped file: plain, gzip (several members one after the other are one text),
// zstd (several frames likewise).
#include <algorithm>
#include <cstring>
#include <string_view>

#include <zlib.h>
#include <zstd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/mapped_file.h"
#include "espalier/io/text_source_internal.h"

namespace espalier {
namespace {

constexpr std::string_view kGzip = "\x1f\x8b";
constexpr std::string_view kZstd = "\x28\xb5\x2f\xfd";
constexpr std::size_t kMaxStep = 1u << 30;  // zlib counts in 32 bits

class Mapped : public TextSource {
 public:
  explicit Mapped(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}
  std::int64_t position() const override { return static_cast<std::int64_t>(at_); }
  std::int64_t size() const override { return static_cast<std::int64_t>(file_->size()); }

 protected:
  std::span<const std::byte> rest() const { return file_->bytes().subspan(at_); }
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorKind::kInput, file_->path().string(),
                format("{} near byte {} of {}", what, at_, size()))
        .hint("fetch or pack the file again");
  }

  std::shared_ptr<const MappedFile> file_;
  std::size_t at_ = 0;
};

class PlainSource final : public Mapped {
 public:
  using Mapped::Mapped;
  std::size_t read(std::span<char> to) override {
    const std::size_t count = std::min(to.size(), rest().size());
    if (count > 0) std::memcpy(to.data(), rest().data(), count);
    at_ += count;
    return count;
  }
};

class GzipSource final : public Mapped {
 public:
  explicit GzipSource(std::shared_ptr<const MappedFile> file) : Mapped(std::move(file)) {
    constexpr int kLargestWindow = 15, kGzipOnly = 16;
    ESPALIER_ASSERT(inflateInit2(&stream_, kLargestWindow + kGzipOnly) == Z_OK);
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  std::size_t read(std::span<char> to) override {
    stream_.next_out = reinterpret_cast<Bytef*>(to.data());
    stream_.avail_out = static_cast<uInt>(std::min(to.size(), kMaxStep));
    const uInt wanted = stream_.avail_out;
    while (stream_.avail_out == wanted && !rest().empty()) {
      if (between_members_ && inflateReset(&stream_) != Z_OK) fail("gzip data cannot be read");
      between_members_ = false;
      const auto given = static_cast<uInt>(std::min(rest().size(), kMaxStep));
      stream_.next_in =
          const_cast<Bytef*>(reinterpret_cast<const Bytef*>(rest().data()));  // zlib only reads it
      stream_.avail_in = given;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      at_ += given - stream_.avail_in;
      between_members_ = status == Z_STREAM_END;
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        fail(format("damaged gzip data ({})", stream_.msg != nullptr ? stream_.msg : "no reason"));
      if (status == Z_BUF_ERROR && rest().empty()) break;
    }
    const std::size_t made = wanted - stream_.avail_out;
    if (made == 0 && !to.empty() && !between_members_) fail("the gzip data ends too early");
    return made;
  }

 private:
  z_stream stream_{};
  bool between_members_ = false;
};

class ZstdSource final : public Mapped {
 public:
  explicit ZstdSource(std::shared_ptr<const MappedFile> file)
      : Mapped(std::move(file)), stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    ESPALIER_ASSERT(stream_ != nullptr);
  }

  std::size_t read(std::span<char> to) override {
    ZSTD_outBuffer out{to.data(), to.size(), 0};
    // After the last byte went in, the decoder may still hold text of an unfinished frame.
    while (out.pos == 0 && out.size > 0 && (!rest().empty() || pending_)) {
      ZSTD_inBuffer in{rest().data(), rest().size(), 0};
      const std::size_t left = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(left)) fail(format("damaged zstd data ({})", ZSTD_getErrorName(left)));
      at_ += in.pos;
      pending_ = left != 0;
      if (rest().empty() && pending_ && out.pos == 0) fail("the zstd data ends too early");
    }
    return out.pos;
  }

 private:
  std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream_;
  bool pending_ = false;
};

}  // namespace

std::unique_ptr<TextSource> TextSource::open(const std::filesystem::path& path) {
  std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  const auto bytes = file->bytes();
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<std::size_t>(bytes.size(), 4));
  if (head.starts_with(kGzip)) return std::make_unique<GzipSource>(std::move(file));
  if (head == kZstd) return std::make_unique<ZstdSource>(std::move(file));
  return std::make_unique<PlainSource>(std::move(file));
}

}  // namespace espalier
