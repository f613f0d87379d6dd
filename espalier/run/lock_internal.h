// Advisory locks: one that marks a path as being written by a living process, one that makes the
// short critical sections (create, publish) of several espalier processes in the same parent folder
// take turns.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace espalier::run_internal {

/// An open file that is closed (and thereby unlocked) on destruction.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_;
};

/// Creates or opens the lock file, takes it with flock and writes our pid and name into it. `what`
/// is the output that the lock guards. Throws Error(kResource) when a living process holds it,
/// naming its pid. On a file system without flock the pid in the file decides. The kernel frees the
/// lock when the process dies, however it dies.
FileDescriptor take_lock(const std::filesystem::path& lock_file, const std::filesystem::path& what);

/// True when the bytes are those of a lock file of ours.
bool is_lock_text(const std::string& text);

/// Waits up to 30 s for the flock of the folder itself. Best effort: where folders cannot be
/// locked, no guard.
class ParentGuard {
 public:
  explicit ParentGuard(const std::filesystem::path& folder);

 private:
  FileDescriptor fd_;
};

/// True when a process with this pid lives on this machine.
bool process_lives(int pid);

/// Writes all bytes; Error(kResource) naming `path` otherwise.
void write_all(int fd, std::string_view bytes, const std::filesystem::path& path);

}  // namespace espalier::run_internal
