// Fuzz target: tables of JSON and of separated values, plain and compressed. Only Error may escape,
// and rows end.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <zstd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/csv.h"
#include "espalier/io/jsonl.h"

namespace {

constexpr std::size_t kMaxRow = 1 << 16;

/// A file in memory that can be opened by name; one for the whole process.
std::string memory_file(const std::uint8_t* data, std::size_t size) {
  static const int descriptor = ::memfd_create("table_fuzz", MFD_CLOEXEC);
  if (descriptor < 0 || ::ftruncate(descriptor, static_cast<off_t>(size)) != 0 ||
      ::pwrite(descriptor, data, size, 0) != static_cast<ssize_t>(size))
    __builtin_trap();
  return espalier::format("/proc/self/fd/{}", descriptor);
}

std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

template <class Open>
void read_all(Open&& open) {
  try {
    const auto table = open();
    espalier::TableValue row;
    while (table->next(row)) {
      if (row.fields() == nullptr || table->where().empty()) __builtin_trap();
    }
    if (table->next(row)) __builtin_trap();
  } catch (const espalier::Error&) {
  }
}

}  // namespace

/// Where the driver starts from; small enough that it cuts them at every byte.
extern "C" void espalier_fuzz_seeds(std::vector<std::vector<std::uint8_t>>& seeds);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" void espalier_fuzz_seeds(std::vector<std::vector<std::uint8_t>>& seeds) {
  constexpr std::string_view kLines =
      "{\"text\": \"a\\u00e9\", \"n\": [1, -2.5e3, true, null]}\n\n{\"m\": {\"k\": [{}]}}\r\n";
  seeds.push_back(bytes(kLines));
  seeds.push_back(bytes("\xEF\xBB\xBF [{\"a\": \"]}\\\"\"}, {\"b\": [[1], {}]}\n]"));
  seeds.push_back(bytes("a,b\n\"x, \"\"y\"\"\n\",2\r\n\n3,\"\"\n"));
  std::string packed(ZSTD_compressBound(kLines.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), kLines.data(), kLines.size(), 1));
  seeds.push_back(bytes(packed));
  // gzip of "{}\n{}\n", stored without compression: header, one stored block, CRC-32 and size.
  seeds.push_back(
      bytes(std::string_view("\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x06\0\xf9\xff{}\n{}\n"
                             "\xaf\xf1\x38\x9c\x06\0\0\0",
                             29)));
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string file = memory_file(data, size);
  read_all([&] { return espalier::open_jsonl(file, kMaxRow); });
  read_all([&] { return espalier::open_csv(file, {.max_row_bytes = kMaxRow}); });
  return 0;
}
