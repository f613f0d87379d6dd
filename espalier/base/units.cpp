// Number formatting and /proc readings.
#include "espalier/base/units.h"

#include <array>
#include <cmath>
#include <fstream>
#include <string_view>

#include "espalier/base/format.h"

namespace espalier {
namespace {

Bytes status_field(std::string_view key) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with(key)) return {std::stoll(line.substr(key.size())) * 1024};
  }
  return {0};
}

}  // namespace

std::string to_string(Bytes bytes) {
  static constexpr std::array<const char*, 6> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes.count);
  std::size_t unit = 0;
  while (std::abs(value) >= 1000.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  if (unit == 0) return format("{} B", bytes.count);
  const int decimals = std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0;
  return format("{:.{}f} {}", value, decimals, kUnits[unit]);
}

std::string format_seconds(double seconds) {
  if (seconds < 0.9995) return format("{:.0f} ms", seconds * 1e3);
  if (seconds < 59.95) return format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return format("{} min {:02} s", whole / 60, whole % 60);
  return format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string format_count(std::int64_t count) {
  std::string digits = std::to_string(count < 0 ? -count : count);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return count < 0 ? "-" + digits : digits;
}

Bytes current_rss() { return status_field("VmRSS:"); }
Bytes peak_rss() { return status_field("VmHWM:"); }

}  // namespace espalier
