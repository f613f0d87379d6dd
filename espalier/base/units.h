// Quantities with units, and how they read: "1.25 GiB", "3 min 20 s", "618 tokens/s".
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace espalier {

/// A count of bytes; a plain integer elsewhere is never bytes by accident.
struct Bytes {
  std::int64_t count = 0;
  auto operator<=>(const Bytes&) const = default;
};

/// "512 B", "1.5 KiB", "439 MiB", "4.00 GiB": three significant digits.
std::string to_string(Bytes bytes);

/// "830 ms", "4.2 s", "3 min 20 s", "2 h 05 min".
std::string format_seconds(double seconds);

/// "1,234,567": thousands separated.
std::string format_count(std::int64_t count);

/// Wall seconds since construction.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Resident memory of this process now, and its peak so far (VmRSS, VmHWM of /proc/self/status); 0
/// where unknown.
Bytes current_rss();
Bytes peak_rss();

}  // namespace espalier
