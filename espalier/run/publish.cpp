// Atomic publish, crash recovery, and removal that never touches what is not ours.
#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <stdio.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/run/lock_internal.h"
#include "espalier/run/publish_internal.h"

namespace fs = std::filesystem;

namespace espalier::run_internal {
namespace {

constexpr unsigned kRenameExchange = 2;  // RENAME_EXCHANGE of <linux/fs.h>

bool exchange(const fs::path& a, const fs::path& b) {
#ifdef SYS_renameat2
  return ::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), kRenameExchange) == 0;
#else
  (void)a, (void)b;
  errno = ENOSYS;
  return false;
#endif
}

void rename_or_throw(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_write_error(to, errno);
}

bool is_our_manifest(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  try {
    const Json manifest = read_json_file(path, 1u << 28);
    return manifest.is_object() && manifest.value("tool", "") == "espalier";
  } catch (const std::exception&) {
    return false;
  }
}

bool is_our_lock(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  try {
    return is_lock_text(read_file(path, 4096));
  } catch (const std::exception&) {
    return false;
  }
}

void remove_or_throw(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);  // does not follow symbolic links
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Error(ErrorKind::kResource, path.string(),
                format("cannot be removed: {}", error.message()));
  }
}

std::vector<fs::path> children(const fs::path& folder) {
  std::vector<fs::path> list;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    list.push_back(it->path());
  }
  return list;
}

/// OUT.old.PID folders of `out`, with the pid, newest last.
std::vector<std::pair<fs::path, int>> old_folders(const fs::path& out) {
  const std::string prefix = out.filename().string() + ".old.";
  std::vector<std::pair<fs::path, int>> found;
  for (const fs::path& path : children(parent_folder(out))) {
    const std::string name = path.filename().string();
    if (!name.starts_with(prefix) ||
        name.find_first_not_of("0123456789", prefix.size()) != std::string::npos) {
      continue;
    }
    if (carries_mark(path) || is_empty_folder(path))
      found.emplace_back(path, std::atoi(name.c_str() + prefix.size()));
  }
  return found;
}

}  // namespace

fs::path partial_path(const fs::path& out) { return out.string() + ".partial"; }

fs::path parent_folder(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

bool carries_mark(const fs::path& folder) {
  return is_our_lock(folder / "run" / "lock") || is_our_manifest(folder / "run" / "manifest.json");
}

bool is_empty_folder(const fs::path& folder) {
  std::error_code ignored;
  for (const fs::path& child : children(folder)) {
    if (child.filename() != "run" || !fs::is_directory(child, ignored)) return false;
    for (const fs::path& file : children(child)) {
      if (file.filename() != "lock" || !fs::is_empty(file, ignored)) return false;
    }
  }
  return true;
}

void remove_marked_folder(const fs::path& folder, bool keep_mark) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(folder, ignored))) return;
  if (!carries_mark(folder) && !is_empty_folder(folder)) {
    throw Error(ErrorKind::kResource, folder.string(),
                "was not written by espalier, so it is not removed");
  }
  const bool by_lock = is_our_lock(folder / "run" / "lock");
  const std::string mark = by_lock ? "lock" : "manifest.json";
  for (const fs::path& child : children(folder)) {
    if (child.filename() != "run") remove_or_throw(child);
  }
  for (const fs::path& child : children(folder / "run")) {
    if (child.filename() != mark) remove_or_throw(child);
  }
  if (keep_mark) return;
  remove_or_throw(folder);
}

void sync_path(const fs::path& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) throw_write_error(path, errno);
  if (::fsync(fd.get()) != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT)) {
    throw_write_error(path, errno);
  }
}

void recover_output(const fs::path& out) {
  const fs::path partial = partial_path(out);
  std::error_code ignored;
  for (const auto& [old, pid] : old_folders(out)) {
    if (!fs::exists(out, ignored) && !is_empty_folder(old)) {
      rename_or_throw(old, out);  // killed between the two renames
    } else if (pid == ::getpid() || !process_lives(pid)) {
      remove_marked_folder(old);  // killed during the clean-up
    }
  }
  if (is_our_manifest(out / "run" / "manifest.json")) {
    fs::remove(out / "run" / "lock",
               ignored);  // killed between the rename and the removal of the lock
  }
  const bool has_lock = fs::exists(partial / "run" / "lock", ignored);
  if (has_lock || !is_our_manifest(partial / "run" / "manifest.json")) return;
  if (fs::exists(out, ignored)) {
    remove_marked_folder(partial);  // killed after the exchange: this is the old OUT
  } else {
    rename_or_throw(partial, out);
  }
}

void publish_folder(const fs::path& out, bool replace, Swap swap) {
  const fs::path partial = partial_path(out);
  const fs::path old = format("{}.old.{}", out.string(), ::getpid());
  {
    const ParentGuard guard(parent_folder(out));
    std::error_code ignored;
    const bool occupied = fs::exists(fs::symlink_status(out, ignored)) &&
                          !(fs::is_directory(out, ignored) && fs::is_empty(out, ignored));
    if (occupied && (!replace || !carries_mark(out))) {
      throw Error(ErrorKind::kUsage, out.string(), "appeared while this run was writing")
          .hint("move it away, or choose another --out");
    }
    if (!occupied) {
      rename_or_throw(partial, out);
    } else {
      fs::remove(out / "run" / "lock",
                 ignored);  // so that a swapped-out OUT is never taken for a run in progress
      if (swap == Swap::kExchange && exchange(partial, out)) {
        rename_or_throw(partial, old);
      } else {
        rename_or_throw(out, old);
        if (::rename(partial.c_str(), out.c_str()) != 0) {
          const int error_number = errno;
          ::rename(old.c_str(), out.c_str());
          throw_write_error(out, error_number);
        }
      }
    }
    sync_path(parent_folder(out));
    fs::remove(out / "run" / "lock", ignored);
  }
  remove_marked_folder(old);
}

}  // namespace espalier::run_internal
