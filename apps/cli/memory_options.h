// --memory-limit: how much memory a verb may take, and how it then reads the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/base/units.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/options/options.h"

namespace espalier::cli {

/// "900M", "1.5GiB", "2000000000": K, M, G, T count in 1024s, with or without B or iB; decimals are
/// allowed. Error(kUsage) naming `flag`.
Bytes parse_bytes(std::string_view text, std::string_view flag);

struct MemoryOptions {
  std::string memory_limit;

  template <class V>
  void visit(V&& option) {
    option("memory_limit", memory_limit,
           "most memory that this process may take, as 900M or 1.5G: layers are then read from the "
           "file as they are needed, and samples scored in groups",
           placeholder("SIZE"));
  }

  std::optional<Bytes> limit() const;
};

/// How a model is held, and what is left for streams of hidden states (0: no limit).
struct MemoryPlan {
  Residency residency = Residency::kResident;
  std::int64_t working_bytes = 0;
};

/// Without a limit: choose_residency. With one: the weights stay in memory when they fit beside
/// what every run needs (the program, the matrices outside the layers, a layer with the activations
/// of one chunk), else they are streamed. Error(kUsage) with the least limit when not even that
/// fits.
MemoryPlan plan_memory(const MemoryOptions& options, const DecoderConfig& config,
                       at::ScalarType type, at::Device device, Reporter& reporter);

}  // namespace espalier::cli
