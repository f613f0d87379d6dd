// SGD with momentum over float32 tensors, one fused pass per step, equal to torch.optim.SGD.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

struct SgdOptions {
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0;  // coupled: added to the gradient
  /// Whether norms and biases (one dimension) decay as well, as torch.optim.SGD has it.
  bool decay_vectors = true;
};

class Sgd {
 public:
  /// Takes handles of the float32 tensors it will change in place; the momentum buffers are made
  /// here (4 bytes an element; none without momentum).
  Sgd(std::vector<at::Tensor> parameters, const SgdOptions& options);

  /// One step at this rate. `gradients` are float32, one per parameter, same shapes and devices.
  /// g += wd * p; b = mu * b + g; p -= lr * (nesterov ? g + mu * b : b).
  /// Source: Sutskever et al. 2013 in torch's form, where the rate multiplies the buffer.
  void step(const std::vector<at::Tensor>& gradients, double lr);
  /// The same with the rate on the parameters' device (CUDA: float32; CPU: any float), asking the
  /// host for nothing: what a CUDA graph can record.
  void step(const std::vector<at::Tensor>& gradients, const at::Tensor& lr);

  /// Empty without momentum.
  const std::vector<at::Tensor>& momenta() const { return momenta_; }

 private:
  template <class Rate>
  void step_all(const std::vector<at::Tensor>& gradients, const Rate& lr);
  template <class Rate>
  void step_group(const std::vector<std::size_t>& group, const std::vector<at::Tensor>& gradients,
                  const Rate& lr, double decay);

  SgdOptions options_;
  std::vector<at::Tensor> parameters_, momenta_;
  std::vector<std::size_t> decayed_, kept_;  // indices by weight-decay group
};

}  // namespace espalier
