// The count behind install_signal_stop, for the reporter, which tells the user that the first
// signal was heard.
#pragma once

namespace espalier::run_internal {

/// SIGINT and SIGTERM received so far.
int stop_signals();

}  // namespace espalier::run_internal
