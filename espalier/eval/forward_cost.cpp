// Cost model of the forward pass.
#include "espalier/eval/forward_cost.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/units.h"
#include "espalier/kernels/matmul/matmul.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {

double layer_flops(const DecoderConfig& config, std::int64_t layers, std::int64_t tokens,
                   std::int64_t seq_len) {
  // Scores and weighted sums over seq_len / 2 earlier tokens on average, 2 operations each.
  const double attention =
      2.0 * static_cast<double>(seq_len) * static_cast<double>(config.num_heads * config.head_dim);
  return static_cast<double>(layers) * static_cast<double>(tokens) *
         (2.0 * static_cast<double>(config.parameters_per_layer()) + attention);
}

double head_flops(const DecoderConfig& config, std::int64_t tokens) {
  return 2.0 * static_cast<double>(tokens) * static_cast<double>(config.vocab_size) *
         static_cast<double>(config.hidden_size);
}

std::int64_t weight_bytes(const DecoderConfig& config, at::ScalarType type) {
  return config.parameters() * static_cast<std::int64_t>(c10::elementSize(type));
}

std::int64_t forward_bytes(const DecoderConfig& config, std::int64_t tokens, at::ScalarType type) {
  // In the MLP: the stream, its normed copy, gate, up and their product; attention needs less.
  const std::int64_t width = 2 * config.hidden_size + 3 * config.intermediate_size;
  return tokens * width * static_cast<std::int64_t>(c10::elementSize(type));
}

std::int64_t head_bytes(const DecoderConfig& config, std::int64_t tokens) {
  constexpr std::int64_t kRows =
      512;  // rows of logits that linear_nll and linear_cross_entropy hold at a time
  return std::min(tokens, kRows) * config.vocab_size * 4;
}

std::int64_t process_bytes() { return std::max<std::int64_t>(current_rss().count, 250ll << 20); }

double measure_flops_per_second(const DecoderConfig& config, at::ScalarType type,
                                at::Device device) {
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(type).device(device);
  constexpr std::int64_t kRows = 1024;
  const at::Tensor x = at::ones({kRows, config.hidden_size}, options),
                   weight = at::ones({config.intermediate_size, config.hidden_size}, options);
  const double flops = 2.0 * kRows * static_cast<double>(config.hidden_size) *
                       static_cast<double>(config.intermediate_size);
  matmul_nt(x, weight);
  synchronize(device);
  const Stopwatch watch;
  std::int64_t runs = 0;
  do {
    matmul_nt(x, weight);
    synchronize(device);
    ++runs;
  } while (watch.seconds() < 0.1);
  return flops * static_cast<double>(runs) / watch.seconds();
}

}  // namespace espalier
