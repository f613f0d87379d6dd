// One of the optimizers, chosen by its options, with its state by name for checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/train/adamw.h"
#include "espalier/train/sgd.h"

namespace espalier {

using OptimizerOptions = std::variant<AdamWOptions, SgdOptions>;

class Optimizer {
 public:
  Optimizer(const std::vector<at::Tensor>& parameters, const OptimizerOptions& options);

  /// See AdamW::step, Sgd::step.
  void step(const std::vector<at::Tensor>& gradients, double lr);
  void step(const std::vector<at::Tensor>& gradients, const at::Tensor& lr);
  /// After the states were overwritten from a checkpoint of this many steps.
  void set_steps(std::int64_t steps);
  /// Each kind of state, one tensor per parameter: exp_avg and exp_avg_sq, or momentum_buffer.
  std::vector<std::pair<std::string, std::vector<at::Tensor>>> states() const;

 private:
  std::variant<AdamW, Sgd> optimizer_;
};

}  // namespace espalier
