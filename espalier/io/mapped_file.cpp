// POSIX mapping of whole files.
#include "espalier/io/mapped_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {
namespace {

/// The part widened (down) or narrowed (in) to whole pages, as madvise wants it.
struct PageRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
};

std::uintptr_t page_size() {
  static const auto size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

PageRange pages_of(std::span<const std::byte> part) {
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
  const std::uintptr_t mask = page_size() - 1;
  return {begin & ~mask, (begin + part.size() + mask) & ~mask};
}

void advise(std::span<const std::byte> part, int advice) {
  if (part.empty()) return;
  const PageRange range = pages_of(part);
  const int saved = errno;  // a hint must not disturb the caller's error handling
  ::madvise(reinterpret_cast<void*>(range.begin), range.end - range.begin, advice);
  errno = saved;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // make_shared cannot reach the private constructor.
  std::shared_ptr<MappedFile> file(new MappedFile());
  file->path_ = path;
  file->descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info {};
  if (file->descriptor_ < 0 || ::fstat(file->descriptor_, &info) != 0) {
    const int error_number = errno;
    Error error(
        error_number == EMFILE || error_number == ENFILE ? ErrorKind::kResource : ErrorKind::kInput,
        path.string(), format("cannot be opened: {}", std::strerror(error_number)));
    if (error_number == ENOENT) error.hint("check the path");
    throw error;
  }
  if (S_ISDIR(info.st_mode))
    throw Error(ErrorKind::kInput, path.string(), "is a folder, expected a file");
  if (!S_ISREG(info.st_mode))
    throw Error(ErrorKind::kInput, path.string(), "is not a regular file");
  file->size_ = static_cast<std::uint64_t>(info.st_size);
  if (file->size_ == 0) return file;
  void* data = ::mmap(nullptr, file->size_, PROT_READ, MAP_SHARED, file->descriptor_, 0);
  if (data == MAP_FAILED) {
    throw Error(ErrorKind::kResource, path.string(),
                format("cannot be mapped: {}", std::strerror(errno)));
  }
  file->data_ = static_cast<const std::byte*>(data);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MappedFile::will_need(std::span<const std::byte> part) const { advise(part, MADV_WILLNEED); }

// The mapping is shared and read-only, so dropped pages come back from the page cache unchanged; a
// neighbour's page at either end is at worst faulted in again.
void MappedFile::release(std::span<const std::byte> part) const { advise(part, MADV_DONTNEED); }

}  // namespace espalier
