// stdout and stderr as the program uses them: results whole or an error, quiet when the reader went
// away.
#pragma once

#include <string_view>

namespace espalier::cli {

/// Thrown when the reader of stdout has gone (`espalier ... | head -1`): not an error, the program
/// just ends.
struct BrokenPipe {};

/// Writes everything to stdout. Throws BrokenPipe, or Error(kResource) with the system's reason.
void write_stdout(std::string_view text);

/// Writes to stderr as far as possible; "error:" in front is coloured on a terminal.
void write_stderr(std::string_view text);

/// True when the descriptor is a terminal that wants attributes: not with NO_COLOR set or
/// TERM=dumb.
bool wants_colour(int descriptor);

/// Columns of the terminal on stdout; 100 when it is none or larger.
std::size_t output_width();

}  // namespace espalier::cli
