// Axes: which values get a tick, how the tick reads, where a value lies.
#pragma once

#include <string>
#include <vector>

namespace espalier::report_internal {

struct Tick {
  double value;
  std::string text;
};

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  std::vector<Tick> ticks;

  /// 0 at low, 1 at high.
  double share(double value) const;
};

/// Linear axis over [low, high] with about `wanted` ticks at 1, 2, 2.5 or 5 times a power of ten.
/// The range is widened to whole ticks when `whole`. `integers`: no tick between whole numbers.
Axis linear_axis(double low, double high, int wanted, bool whole, bool integers = false);

/// Logarithmic axis over [low, high], 0 < low <= high: decades, and 2 and 5 times them when there
/// are few.
Axis log_axis(double low, double high);

}  // namespace espalier::report_internal
