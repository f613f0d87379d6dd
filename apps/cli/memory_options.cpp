// See memory_options.h.
#include "apps/cli/memory_options.h"

#include <algorithm>
#include <charconv>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/eval/forward_cost.h"

#include "apps/cli/residency.h"

namespace espalier::cli {
namespace {

/// Tokens that run through a layer at once on the CPU, as in methods/layer_pruning.
constexpr std::int64_t kChunkTokens = 2560;

}  // namespace

Bytes parse_bytes(std::string_view text, std::string_view flag) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  constexpr std::string_view kUnits = "KMGT";
  double factor = 1;
  if (!unit.empty()) {
    const std::size_t power =
        kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit.front()))));
    if (power != std::string_view::npos) {
      for (std::size_t i = 0; i <= power; ++i) factor *= 1024;
      unit.remove_prefix(1);
    }
  }
  const bool known = unit.empty() || unit == "B" || unit == "iB" || unit == "b";
  if (code != std::errc() || !known || !(value > 0) || value * factor > 9e18) {
    throw Error(ErrorKind::kUsage, flag, format("`{}` is not a size", text.substr(0, 40)))
        .hint("900M, 1.5G or a number of bytes");
  }
  return {static_cast<std::int64_t>(value * factor)};
}

std::optional<Bytes> MemoryOptions::limit() const {
  if (memory_limit.empty()) return std::nullopt;
  return parse_bytes(memory_limit, "--memory-limit");
}

MemoryPlan plan_memory(const MemoryOptions& options, const DecoderConfig& config,
                       at::ScalarType type, at::Device device, Reporter& reporter) {
  const std::optional<Bytes> limit = options.limit();
  if (!limit) return {choose_residency(config, type, device, reporter), 0};
  if (!device.is_cpu()) {
    throw Error(ErrorKind::kUsage, "--memory-limit", "bounds the memory of the CPU only")
        .hint("leave it out, or --device cpu");
  }
  const std::int64_t element = static_cast<std::int64_t>(c10::elementSize(type));
  const std::int64_t all = weight_bytes(config, type);
  const std::int64_t layer = config.parameters_per_layer() * element;
  const std::int64_t outside = all - layer * config.num_layers;
  // A stream of one sample at least, besides what every run needs.
  const std::int64_t run = process_bytes() + forward_bytes(config, kChunkTokens, type) +
                           head_bytes(config, kChunkTokens);
  const std::int64_t streamed = run + outside + 2 * layer;  // one as stored, one in `type`
  const std::int64_t resident = run + all;
  const std::int64_t least = streamed + (64ll << 20);
  if (limit->count < least) {
    throw Error(ErrorKind::kUsage, "--memory-limit",
                format("is {}, but a layer, the matrices outside the layers and a chunk of "
                       "activations need {}",
                       to_string(*limit), to_string(Bytes{least})))
        .hint(type == at::kFloat ? "--dtype bfloat16 halves it" : "raise the limit");
  }
  MemoryPlan plan;
  plan.residency =
      limit->count >= resident + (256ll << 20) ? Residency::kResident : Residency::kStreamed;
  plan.working_bytes =
      limit->count - (plan.residency == Residency::kResident ? resident : streamed);
  reporter.info(format("memory limit {}: weights are {}, {} are left for hidden states",
                       to_string(*limit),
                       plan.residency == Residency::kResident ? "loaded" : "read layer by layer",
                       to_string(Bytes{plan.working_bytes})));
  return plan;
}

}  // namespace espalier::cli
