// AdamW over float32 tensors, one fused pass per step, equal to torch.optim.AdamW(fused=True).
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay =
      0;  // decoupled; matrices only: norms and biases (one dimension) are never decayed
};

class AdamW {
 public:
  /// Takes handles of the float32 tensors it will change in place; the two moments are made here (2
  /// x 4 bytes an element).
  AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options);

  /// One step at this rate. `gradients` are float32, one per parameter, same shapes and devices.
  /// p *= 1 - lr * wd; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
  /// p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps).   Source: Loshchilov and Hutter,
  /// arXiv 1711.05101.
  void step(const std::vector<at::Tensor>& gradients, double lr);

  std::int64_t steps() const { return steps_; }
  const std::vector<at::Tensor>& first_moments() const { return first_; }
  const std::vector<at::Tensor>& second_moments() const { return second_; }
  /// After the moments were overwritten from a checkpoint of this many steps.
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  void step_group(const std::vector<std::size_t>& group, const std::vector<at::Tensor>& gradients,
                  double lr, double decay);

  AdamWOptions options_;
  std::vector<at::Tensor> parameters_, first_, second_;
  at::Tensor counter_;
  std::vector<std::size_t> matrices_, vectors_;  // indices by weight-decay group
  std::int64_t steps_ = 0;
};

}  // namespace espalier
