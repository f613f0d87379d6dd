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
  /// The same with the rate on the parameters' device (CUDA: float32; CPU: any float), asking the
  /// host for nothing: what a CUDA graph can record.
  void step(const std::vector<at::Tensor>& gradients, const at::Tensor& lr);

  /// Waits for the device.
  std::int64_t steps() const;
  const std::vector<at::Tensor>& first_moments() const { return first_; }
  const std::vector<at::Tensor>& second_moments() const { return second_; }
  /// After the moments were overwritten from a checkpoint of this many steps.
  void set_steps(std::int64_t steps);

 private:
  template <class Rate>
  void step_all(const std::vector<at::Tensor>& gradients, const Rate& lr);
  template <class Rate>
  void step_group(const std::vector<std::size_t>& group, const std::vector<at::Tensor>& gradients,
                  const Rate& lr, double decay);

  AdamWOptions options_;
  std::vector<at::Tensor> parameters_, first_, second_;
  at::Tensor counter_;  // steps, float32 scalar on the device, as the kernel wants it
  std::vector<std::size_t> matrices_, vectors_;  // indices by weight-decay group
};

}  // namespace espalier
