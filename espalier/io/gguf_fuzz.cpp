// Fuzz target: whatever bytes a GGUF header holds, the parser returns something consistent or
// throws Error.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/io/gguf_internal.h"

namespace {

using Input = std::vector<std::uint8_t>;

/// Writes GGUF by hand, apart from our own writer.
struct Builder {
  std::string bytes = "GGUF";

  template <class T>
  Builder& number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Builder& text(const std::string& value) {
    number<std::uint64_t>(value.size());
    bytes += value;
    return *this;
  }
  Input with_data(std::size_t alignment, std::size_t size) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment + size);
    return Input(bytes.begin(), bytes.end());
  }
};

Input one_of_everything(std::uint32_t version) {
  Builder b;
  b.number(version).number<std::uint64_t>(3).number<std::uint64_t>(8);
  b.text("general.architecture").number<std::uint32_t>(8).text("llama");
  b.text("general.alignment").number<std::uint32_t>(4).number<std::uint32_t>(64);
  b.text("llama.rope.freq_base").number<std::uint32_t>(6).number(10000.0f);
  b.text("a.i64").number<std::uint32_t>(11).number<std::int64_t>(-5);
  b.text("a.bool").number<std::uint32_t>(7).number<std::uint8_t>(1);
  b.text("a.f64").number<std::uint32_t>(12).number(0.25);
  b.text("tokens")
      .number<std::uint32_t>(9)
      .number<std::uint32_t>(8)
      .number<std::uint64_t>(3)
      .text("a")
      .text("")
      .text("bc");
  b.text("types")
      .number<std::uint32_t>(9)
      .number<std::uint32_t>(5)
      .number<std::uint64_t>(2)
      .number(1)
      .number(-1);
  b.text("token_embd.weight")
      .number<std::uint32_t>(2)
      .number<std::uint64_t>(32)
      .number<std::uint64_t>(2);
  b.number<std::uint32_t>(8).number<std::uint64_t>(0);  // Q8_0, 68 bytes
  b.text("norm")
      .number<std::uint32_t>(1)
      .number<std::uint64_t>(4)
      .number<std::uint32_t>(0)
      .number<std::uint64_t>(128);
  b.text("none")
      .number<std::uint32_t>(1)
      .number<std::uint64_t>(0)
      .number<std::uint32_t>(0)
      .number<std::uint64_t>(192);
  return b.with_data(64, 192);
}

[[noreturn]] void inconsistent() { __builtin_trap(); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto header = espalier::parse_gguf_header(bytes, "fuzz");
    for (const auto& tensor : header.tensors) {
      if (tensor.bytes > 0 && (tensor.begin > size || tensor.bytes > size - tensor.begin))
        inconsistent();
      std::int64_t numel = 1;
      for (const std::int64_t dim : tensor.shape) numel *= dim;
      if (espalier::gguf_bytes(tensor.type, numel) != static_cast<std::int64_t>(tensor.bytes))
        inconsistent();
    }
  } catch (const espalier::Error& error) {
    if (error.kind() == espalier::ErrorKind::kInternal) inconsistent();
  }
  return 0;
}

extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds) {
  seeds.push_back(one_of_everything(3));
  seeds.push_back(one_of_everything(2));
  seeds.push_back(Builder()
                      .number<std::uint32_t>(3)
                      .number<std::uint64_t>(0)
                      .number<std::uint64_t>(0)
                      .with_data(1, 0));
}
