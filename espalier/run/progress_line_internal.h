// What a progress bar or a progress line says, apart from where and when it is written.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace espalier::run_internal {

/// Done over time, as the last half minute saw it; a resumed phase that starts at 500 of 1000 is
/// not credited with 500.
class RateMeter {
 public:
  /// Notes that `done` was reached at `seconds` after the phase began.
  void add(double seconds, std::int64_t done);
  /// Amount per second at time `seconds`; 0 while unknown.
  double rate(double seconds) const;
  std::int64_t first_done() const { return samples_.empty() ? 0 : first_done_; }

 private:
  struct Sample {
    double seconds;
    std::int64_t done;
  };
  std::deque<Sample> samples_;
  std::int64_t first_done_ = 0;
};

struct ProgressState {
  std::string name, unit, note;
  std::int64_t done = 0, total = 0;  // total 0: unknown
  double seconds = 0;                // since the phase began
  double rate = 0;                   // per second; 0: unknown
  std::int64_t rss_bytes = 0;
};

/// "12/30 layers", "1.50 GiB of 4.00 GiB", "12 layers" when the total is unknown.
std::string progress_amount(const ProgressState& state);

/// "3.4 layers/s", "412 MiB/s", "2.1 s/layer"; "" when unknown.
std::string progress_rate(double rate, std::string_view unit);

/// "scoring layers: 12/30 layers (40 %), 3.4 layers/s, ETA 5.3 s, RSS 439 MiB, loss 3.41".
std::string progress_text(const ProgressState& state);

/// One line of at most `columns` columns; parts are left out from the least important when it is
/// narrow. unicode: draw with box characters, else with # and -. color: ANSI colours.
std::string progress_bar(const ProgressState& state, int columns, bool unicode, bool color);

/// Columns of a UTF-8 text, counting each code point as one.
int text_columns(std::string_view text);

/// The text with control characters replaced by '?', so that a model name cannot move the cursor.
/// keep_newlines: '\n' and '\t' stay.
std::string printable(std::string_view text, bool keep_newlines);

}  // namespace espalier::run_internal
