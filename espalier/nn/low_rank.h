// Low-rank adapters (LoRA, rsLoRA, DoRA): what one is, and how a linear layer with one computes.
// Not where adapters go in a model (models/decoder/adapters.h) nor their files (io/peft_folder.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

struct Linear;

/// Dropout of all adapters of a model: masks are a pure function of (seed, counter, stream,
/// element) and never stored, so a forward that is recomputed (activation checkpointing), a resumed
/// run and a captured CUDA graph see the masks they must see.
struct DropoutState {
  std::uint64_t seed = 0;
  at::Tensor counter;   // int64 scalar on the model's device; set it before each micro-batch
  bool active = false;  // off: adapters see x as it is (evaluation)
};

/// One adapter: W' = W + scale * B A, or (DoRA, when `magnitude` is defined) the rows of that
/// rescaled to length `magnitude`. float32 tensors are their own masters whatever the compute
/// dtype: products run in x's dtype, gradients come back in the tensors' dtype.
struct LowRank {
  at::Tensor a;                               // [rank, in]
  at::Tensor b;                               // [out, rank]
  at::Tensor magnitude;                       // [out], DoRA only, else undefined
  double scale = 1;                           // alpha / rank, or alpha / sqrt(rank) with rsLoRA
  double alpha = 1;                           // kept for files
  double dropout = 0;                         // of x on the way into A
  std::uint64_t stream = 0;                   // of this adapter's masks
  std::shared_ptr<const DropoutState> masks;  // null: no dropout
  at::Tensor weight_norm_squared;             // float32 [out] of the frozen W; DoRA only

  std::int64_t rank() const { return a.size(0); }
  bool is_dora() const { return magnitude.defined(); }

  /// Tensors under the names PEFT gives them after the module's own.
  template <class V>
  void visit(V&& slot) {
    slot("lora_A.weight", a);
    slot("lora_B.weight", b);
    slot("lora_magnitude_vector", magnitude);
  }
};

struct LowRankOptions {
  std::int64_t rank = 8;
  double alpha = 16;
  double dropout = 0;
  bool rslora = false;  // scale alpha / sqrt(rank)
  bool dora = false;
};

/// alpha / rank, or alpha / sqrt(rank).
double low_rank_scale(const LowRankOptions& options);

/// Gives `linear` a fresh adapter: A Kaiming-uniform with a = sqrt(5), i.e. uniform in
/// +-1/sqrt(in), drawn from the stream (seed, name); B zeros; DoRA magnitudes the row norms of W.
/// float32 on the weight's device, requiring no gradient yet. `linear` then computes what it
/// computed before. Throws Error(kUsage) for rank < 1, dropout outside [0, 1), an adapter that is
/// there already.
void init_low_rank(Linear& linear, const LowRankOptions& options, std::uint64_t seed,
                   const std::string& name);

/// Row norms squared of the layer's frozen weight, float32 [out]; quantised weights are dequantised
/// tile by tile.
at::Tensor row_norms_squared(const Linear& linear);

/// ||W + scale B A|| per row, float32 [out], without forming that matrix:
/// ||W||^2 + 2 s (W A^T) . B + s^2 B (A A^T) B^T. Cost 2 * out * in * rank operations. For DoRA
/// adapters only (needs weight_norm_squared). Source: spec 4.10; PEFT computes the same from the
/// full matrix.
at::Tensor adapted_row_norms(const Linear& linear);

/// The weight with its adapter folded in, float32 [out, in]: W + scale B A, DoRA rows rescaled.
at::Tensor merged_weight(const Linear& linear);
/// The same from parts: `weight` [out, in] any float dtype, computed in float32.
at::Tensor merge_low_rank(const at::Tensor& weight, const LowRank& adapter);

/// y_i = layer_i(x) for layers that share the input x [..., in] (q, k, v; gate, up). With adapters
/// the group saves x once, runs one product on the stacked A matrices and one for its gradient in
/// x, and writes each B product into its layer's output in place. Layers with and without adapters
/// may be mixed, as may quantised and plain ones. One dropout mask serves the group: the stream of
/// its first adapter.
///
/// Differentiable in x, a, b, magnitude; the frozen weight and bias get no gradient while an
/// adapter sits on them. DoRA: the row norm is a constant in the backward (as in the paper and in
/// PEFT); with dropout the base product sees the undropped x (PEFT drops it there too).
std::vector<at::Tensor> linear_group(const at::Tensor& x, const std::vector<const Linear*>& layers);

}  // namespace espalier
