// For the tests of this module: a temporary folder, a forked child, an Error caught as a value.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier::run_test {

class TempFolder {
 public:
  explicit TempFolder(std::filesystem::path parent = std::filesystem::temp_directory_path()) {
    std::string pattern = (parent / "espalier_run_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The Error that `body` throws; a test failure when it throws none.
template <class Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "expected an Error";
  return Error(ErrorKind::kInternal, "", "no error was thrown");
}

/// Forks; the child runs `body` and exits with its int result (255 when it throws). Returns the
/// child's pid.
template <class Body>
pid_t start_child(Body&& body) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  int code = 255;
  try {
    code = body();
  } catch (const Error& error) {
    ::dprintf(2, "%s\n", error.to_string().c_str());
  } catch (...) {
  }
  ::_exit(code);
}

/// Exit code of the child, or 1000 + the signal that ended it.
inline int wait_for(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

template <class Body>
int in_child(Body&& body) {
  return wait_for(start_child(std::forward<Body>(body)));
}

}  // namespace espalier::run_test
