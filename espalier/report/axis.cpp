// Nice ticks, linear and logarithmic.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/report/axis_internal.h"
#include "espalier/report/markup_internal.h"

namespace espalier::report_internal {
namespace {

constexpr int kMaxTicks = 1000;  // a guard against denormal steps, not a layout choice

double nice_step(double span, int wanted) {
  const double rough = span / std::max(wanted, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

/// All ticks of an axis with the same decimals: "0.0", "0.5", "1.0".
std::string tick_text(double value, double step) {
  const double largest = std::max(std::abs(value), step);
  if (largest >= 1e7 || step < 1e-5)
    return number_text(std::abs(value) < step * 1e-6 ? 0.0 : value);
  const double exponent = std::floor(std::log10(step) + 1e-9);
  int decimals = std::max(0, static_cast<int>(-exponent));
  const double scaled = step * std::pow(10.0, decimals);
  if (std::abs(scaled - std::round(scaled)) > 1e-6) ++decimals;  // steps of 2.5
  if (decimals == 0) return format_count(static_cast<std::int64_t>(std::llround(value)));
  std::string text = format("{:.{}f}", value, decimals);
  return text.find_first_not_of("-0.") == std::string::npos && text.starts_with('-')
             ? text.substr(1)
             : text;
}

}  // namespace

double Axis::share(double value) const {
  if (log) return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
  return (value - low) / (high - low);
}

Axis linear_axis(double low, double high, int wanted, bool whole, bool integers) {
  Axis axis;
  if (!(high > low)) {  // one value: centre it
    const double pad = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= pad, high += pad;
  }
  const double magnitude = std::max(std::abs(low), std::abs(high));
  if (high - low < magnitude * 1e-12) low -= magnitude * 1e-6, high += magnitude * 1e-6;
  double step = nice_step(high - low, wanted);
  if (integers) step = std::max(1.0, std::ceil(step - 1e-9));
  axis.low = whole ? std::floor(low / step + 1e-9) * step : low;
  axis.high = whole ? std::ceil(high / step - 1e-9) * step : high;
  const double first = std::ceil(axis.low / step - 1e-9);
  for (int i = 0; i < kMaxTicks; ++i) {
    const double value = (first + i) * step;
    if (value > axis.high + step * 1e-6) break;
    axis.ticks.push_back({value, tick_text(value, step)});
  }
  return axis;
}

Axis log_axis(double low, double high) {
  Axis axis;
  axis.log = true;
  const double decades = std::log10(high / low);
  const double pad = std::pow(10.0, std::max(0.04 * decades, 0.005));
  axis.low = low / pad;
  axis.high = high * pad;
  if (decades < 0.5) {  // nothing of 1, 2, 5 may lie inside: linear ticks at logarithmic places
    axis.ticks = linear_axis(axis.low, axis.high, 5, /*whole=*/false).ticks;
    return axis;
  }
  const int first = static_cast<int>(std::floor(std::log10(axis.low)));
  const int last = static_cast<int>(std::ceil(std::log10(axis.high)));
  const int skip = std::max(1, (last - first + 7) / 8);
  for (int decade = first; decade <= last; ++decade) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades > 2.2) continue;
      if (factor == 1 && (decade - first) % skip != 0) continue;
      const double value = factor * std::pow(10.0, decade);
      if (value >= axis.low * (1 - 1e-9) && value <= axis.high * (1 + 1e-9)) {
        axis.ticks.push_back({value, number_text(value)});
      }
    }
  }
  return axis;
}

}  // namespace espalier::report_internal
