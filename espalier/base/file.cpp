// POSIX reading and atomic writing.
#include "espalier/base/file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"

namespace espalier {
namespace {

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) {
    throw Error(ErrorKind::kInput, path.string(),
                format("cannot be read: {}", std::strerror(errno)));
  }
  if (S_ISDIR(info.st_mode))
    throw Error(ErrorKind::kInput, path.string(), "is a folder, expected a file");
  if (static_cast<std::uint64_t>(info.st_size) > max_bytes) {
    throw Error(ErrorKind::kInput, path.string(),
                format("is {}, larger than the limit of {} for this kind of file",
                       to_string(Bytes{info.st_size}),
                       to_string(Bytes{static_cast<std::int64_t>(max_bytes)})));
  }
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t done = 0;
  for (;;) {
    // Files under /proc and pipes report size 0, so read until the end rather than until st_size.
    if (done == bytes.size()) bytes.resize(done + 65536);
    const ssize_t got = ::read(file.fd, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error(ErrorKind::kInput, path.string(), format("read error: {}", std::strerror(errno)));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
    if (done > max_bytes)
      throw Error(ErrorKind::kInput, path.string(), "grew past the size limit while being read");
  }
  bytes.resize(done);
  return bytes;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (file.fd < 0) throw_write_error(path, errno);
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(file.fd, bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      const int error_number = errno;
      ::unlink(temporary.c_str());
      throw_write_error(path, error_number);
    }
    done += static_cast<std::size_t>(put);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error_number = errno;
    ::unlink(temporary.c_str());
    throw_write_error(path, error_number);
  }
}

void throw_write_error(const std::filesystem::path& path, int error_number) {
  Error error(ErrorKind::kResource, path.string(),
              format("cannot be written: {}", std::strerror(error_number)));
  if (error_number == ENOSPC || error_number == EDQUOT) {
    error.hint("free some space, or write to another disk with --out");
  } else if (error_number == EROFS || error_number == EACCES) {
    error.hint("choose a folder you may write to with --out");
  }
  throw error;
}

}  // namespace espalier
