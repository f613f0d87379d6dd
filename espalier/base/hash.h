// Digests: SHA-256 for small inputs that others must be able to check (calibration text, configs),
// XXH3-128 for gigabytes of weights, where the digest guards against corruption, not against an
// attacker.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

/// Lower-case hexadecimal SHA-256 of the bytes.
std::string sha256_hex(std::string_view bytes);

/// SHA-256 of a whole file, streamed. Throws Error(kInput) when it cannot be read.
std::string sha256_file(const std::filesystem::path& path);

/// Streaming XXH3-128 (memory-bandwidth bound, about 20 GB/s from cache). `hex()` may be called at
/// any time.
class FastHash {
 public:
  FastHash();
  ~FastHash();
  FastHash(FastHash&&) noexcept;
  FastHash& operator=(FastHash&&) noexcept;
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text);
  /// 32 lower-case hexadecimal digits.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
