// Writing to the standard descriptors; see output.h.
#include "apps/cli/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include <sys/ioctl.h>
#include <unistd.h>

#include "espalier/base/error.h"

namespace espalier::cli {

namespace {

// 0, or the errno of the write that failed.
int write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

void write_stdout(std::string_view text) {
  const int problem = write_all(STDOUT_FILENO, text);
  if (problem == 0) return;
  if (problem == EPIPE) throw BrokenPipe{};
  throw Error(ErrorKind::kResource, "standard output", std::strerror(problem))
      .hint("free some space, or send the output elsewhere");
}

void write_stderr(std::string_view text) {
  std::string coloured;
  constexpr std::string_view kError = "error:";
  if (text.starts_with(kError) && wants_colour(STDERR_FILENO)) {
    coloured = "\x1b[1;31merror:\x1b[0m" + std::string(text.substr(kError.size()));
    text = coloured;
  }
  write_all(STDERR_FILENO, text);
}

bool wants_colour(int descriptor) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (no_colour != nullptr && *no_colour != '\0') return false;
  if (term == nullptr || std::strcmp(term, "dumb") == 0) return false;
  return isatty(descriptor) == 1;
}

std::size_t output_width() {
  constexpr std::size_t kWidest = 100, kNarrowest = 60;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kWidest;
  return std::clamp<std::size_t>(size.ws_col, kNarrowest, kWidest);
}

}  // namespace espalier::cli
