// The one place where exceptions become exit codes and words for the user.
#pragma once

#include <exception>
#include <string>

namespace espalier::cli {

struct Failure {
  int exit_code = 70;
  std::string text;  // for stderr, with a trailing newline; may be empty
};

/// Error -> its kind; out of memory (bad_alloc, libtorch's) -> 5; file system errors without room
/// or right -> 5; Interrupted -> 130; anything else -> 70 with a request to report it. `debug` adds
/// where it was thrown.
Failure describe_failure(std::exception_ptr error, bool debug);

/// `text` with control characters other than newline and tab written out, so that a hostile file
/// name or tensor name cannot drive the terminal.
std::string printable(const std::string& text);

}  // namespace espalier::cli
