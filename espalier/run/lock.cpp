// flock-based locks. A lock file may be renamed or removed between our open and our flock (its
// owner published), so after flock the name is looked up again and must still be the same file.
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/run/lock_internal.h"

namespace espalier::run_internal {
namespace {

constexpr std::string_view kLockSignature = "espalier run in progress";

std::string read_small(int fd) {
  char buffer[256];
  const ssize_t got = ::pread(fd, buffer, sizeof(buffer), 0);
  return got > 0 ? std::string(buffer, static_cast<std::size_t>(got)) : std::string();
}

[[noreturn]] void throw_held(const std::filesystem::path& what, const std::string& text) {
  const int pid = std::atoi(text.c_str());
  if (pid <= 0) {
    throw Error(ErrorKind::kResource, what.string(), "is being written by another process")
        .hint("wait until it has finished, or choose another --out");
  }
  throw Error(ErrorKind::kResource, what.string(), format("is being written by process {}", pid))
      .hint(format("wait until it has finished, stop it with `kill {}`, or choose another --out",
                   pid));
}

bool same_file(int fd, const std::filesystem::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void FileDescriptor::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool process_lives(int pid) { return pid > 0 && (::kill(pid, 0) == 0 || errno == EPERM); }

bool is_lock_text(const std::string& text) {
  return text.find(kLockSignature) != std::string::npos;
}

void write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw_write_error(path, errno);
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
}

FileDescriptor take_lock(const std::filesystem::path& lock_file,
                         const std::filesystem::path& what) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    FileDescriptor fd(::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!fd.valid()) throw_write_error(lock_file, errno);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      const std::string text = read_small(fd.get());
      if (errno == EWOULDBLOCK) throw_held(what, text);
      // No flock here (some network file systems): the pid in the file is the best evidence there
      // is.
      const int pid = std::atoi(text.c_str());
      if (pid != ::getpid() && process_lives(pid)) throw_held(what, text);
    }
    if (!same_file(fd.get(), lock_file)) continue;
    // Fixed width and no truncation: the mark is in the file at every moment from its first write
    // on.
    write_all(fd.get(), format("{:<10}\n{}\n", ::getpid(), kLockSignature), lock_file);
    return fd;
  }
  throw Error(ErrorKind::kResource, what.string(), "its lock file keeps changing hands")
      .hint("another process works in the same folder; choose another --out");
}

ParentGuard::ParentGuard(const std::filesystem::path& folder)
    : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (!fd_.valid()) return;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return;
    if (std::chrono::steady_clock::now() > deadline) {
      throw Error(ErrorKind::kResource, folder.string(), "is locked by another process since 30 s")
          .hint("find it with `fuser " + folder.string() + "`");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace espalier::run_internal
