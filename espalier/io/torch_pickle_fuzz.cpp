// Fuzz target: whatever bytes a file of torch.save holds, the reader returns tensors that lie in
// their storages or throws Error.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/io/torch_pickle_internal.h"

namespace {

using Input = std::vector<std::uint8_t>;

[[noreturn]] void inconsistent() { __builtin_trap(); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const espalier::TorchPickle found = espalier::read_torch_pickle(bytes, "fuzz", nullptr);
    for (const auto& [path, tensor] : found.tensors) {
      const at::Tensor copy = tensor.contiguous();  // touches every element
      if (copy.nbytes() > size) inconsistent();
      if (copy.numel() > 0 && copy.flatten().select(0, copy.numel() - 1).nbytes() == 0)
        inconsistent();
    }
  } catch (const espalier::Error& error) {
    // Bad input is never reported as a bug of ours.
    if (error.kind() == espalier::ErrorKind::kInternal) inconsistent();
  }
  return 0;
}

extern "C" void espalier_fuzz_seeds(std::vector<Input>& seeds) {
  const auto folder = std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier/io/testdata/torch";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string bytes = espalier::read_file(entry.path());
    seeds.emplace_back(bytes.begin(), bytes.end());
  }
}
