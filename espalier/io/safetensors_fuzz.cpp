// Fuzz target: whatever bytes a safetensors header holds, the parser returns something consistent
// or throws Error.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/io/safetensors_internal.h"

namespace {

using Input = std::vector<std::uint8_t>;

Input file_of(const std::string& header, std::size_t data_bytes) {
  Input input(8 + header.size() + data_bytes);
  const std::uint64_t length = header.size();
  std::memcpy(input.data(), &length, 8);
  std::memcpy(input.data() + 8, header.data(), header.size());
  return input;
}

[[noreturn]] void inconsistent() { __builtin_trap(); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto header = espalier::parse_safetensors_header(bytes, "fuzz");
    if (header.data_start > size) inconsistent();
    std::uint64_t end = 0;
    for (const auto& entry : header.entries) {
      if (entry.begin != end || entry.end < entry.begin) inconsistent();
      end = entry.end;
    }
    if (end != size - header.data_start) inconsistent();
  } catch (const espalier::Error& error) {
    // Bad input is never reported as a bug of ours.
    if (error.kind() == espalier::ErrorKind::kInternal) inconsistent();
  }
  return 0;
}

extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds) {
  seeds.push_back(file_of("{}", 0));
  seeds.push_back(file_of(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24));
  seeds.push_back(
      file_of(R"({"__metadata__":{"format":"pt","a":"\u00e9\n"},)"
              R"("model.norm.weight":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},)"
              R"("empty":{"dtype":"I64","shape":[0,7],"data_offsets":[8,8]},)"
              R"("scalar":{"dtype":"F64","shape":[],"data_offsets":[8,16]}}      )",
              16));
}
