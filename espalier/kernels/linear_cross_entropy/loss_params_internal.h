// The kernels' arguments on raw memory: torch-free, so that the .cu file compiles fast. Internal.
#pragma once

#include <cstdint>

namespace espalier {

struct LossParams {
  void* logits = nullptr;                 // [rows, vocab]; becomes the gradient
  const std::int64_t* targets = nullptr;  // [rows]; negative: the row counts nothing
  const float* scale = nullptr;           // one number
  float* losses = nullptr;                // [rows], already times scale
  std::int64_t rows = 0, vocab = 0;
  bool bf16 = false;
};
/// losses[r] = scale * nll(r); logits = (softmax - onehot) * scale. Only in builds with
/// ESPALIER_CUDA; `stream` is a cudaStream_t.
void launch_loss_and_gradient(const LossParams& params, void* stream);

struct NllParams {
  const void* logits = nullptr;           // [rows, vocab]
  const std::int64_t* targets = nullptr;  // [rows], all within the vocabulary
  float* nll = nullptr;                   // [rows]
  bool* best = nullptr;                   // [rows]: no logit is above the target's
  std::int64_t rows = 0, vocab = 0;
  bool bf16 = false;
};
/// nll[r] = log sum e^logits[r] - logits[r][target]. Only in builds with ESPALIER_CUDA; `stream` is
/// a cudaStream_t.
void launch_nll(const NllParams& params, void* stream);

}  // namespace espalier
