// POSIX writing and copying.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/io/file_sink_internal.h"

namespace espalier {
namespace {

// Small enough for the second-level cache, where the copied bytes wait to be hashed and written;
// large enough that system calls do not count. Measured against copy_file_range in
// docs/formats/safetensors.md.
constexpr std::size_t kChunk = std::size_t{512} << 10;

}  // namespace

FileSink::FileSink(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_write_error(path, errno);
}

FileSink::~FileSink() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!finished_) ::unlink(path_.c_str());
}

void FileSink::write_all(const std::byte* data, std::size_t count) {
  ESPALIER_ASSERT(descriptor_ >= 0);
  std::size_t done = 0;
  while (done < count) {
    const ssize_t put = ::write(descriptor_, data + done, count - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw_write_error(path_, errno);
    if (put == 0) throw_write_error(path_, ENOSPC);
    done += static_cast<std::size_t>(put);
  }
  size_ += count;
  if (on_bytes_) on_bytes_(size_);
}

void FileSink::write(std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += kChunk) {
    const auto part = bytes.subspan(at, std::min(kChunk, bytes.size() - at));
    hash_.add(part);
    write_all(part.data(), part.size());
  }
}

void FileSink::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void FileSink::write_zeros(std::uint64_t count) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  while (count > 0) {
    const std::uint64_t part = std::min<std::uint64_t>(count, kZeros.size());
    write(std::span(kZeros).first(part));
    count -= part;
  }
}

void FileSink::copy(const MappedFile& source, std::uint64_t offset, std::uint64_t size) {
  ESPALIER_ASSERT(offset <= source.size() && size <= source.size() - offset);
  if (!buffer_) buffer_ = std::make_unique<std::byte[]>(kChunk);
  std::uint64_t done = 0;
  while (done < size) {
    const std::size_t want = std::min<std::uint64_t>(kChunk, size - done);
    const ssize_t got =
        ::pread(source.descriptor(), buffer_.get(), want, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error(ErrorKind::kInput, source.path().string(),
                  format("read error: {}", std::strerror(errno)));
    if (got == 0) {
      throw Error(
          ErrorKind::kInput, source.path().string(),
          format("ended at byte {} while being copied, although it had {} bytes when it was opened",
                 offset + done, source.size()))
          .hint("another program changed the file; run again when it is done");
    }
    hash_.add(std::span<const std::byte>(buffer_.get(), static_cast<std::size_t>(got)));
    write_all(buffer_.get(), static_cast<std::size_t>(got));
    done += static_cast<std::uint64_t>(got);
  }
}

void FileSink::finish() {
  ESPALIER_ASSERT(descriptor_ >= 0);
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0 && errno != EINTR) throw_write_error(path_, errno);
  finished_ = true;
}

}  // namespace espalier
