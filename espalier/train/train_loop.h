// The training loop: steps, learning rate, clipping, optimizer, averaged weights, metrics,
// checkpoints, resume. It knows neither models nor data: one function gives the loss and gradients
// of a step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/run/run_folder.h"
#include "espalier/train/optimizer.h"
#include "espalier/train/schedule.h"
#include "espalier/train/trained_tensor.h"

namespace espalier {

/// What is measured on data that does not train.
struct Evaluation {
  double loss = 0;                                      // the lower the better
  std::vector<std::pair<std::string, double>> metrics;  // rows of the metrics file; empty: the loss
};

struct TrainOptions {
  Schedule schedule;  // schedule.steps is the length of the run
  OptimizerOptions optimizer = AdamWOptions{};
  double clip = 1.0;                    // largest global gradient norm; 0 = off
  std::int64_t checkpoint_every = 100;  // steps; 0 = only at the end and on a stop request
  /// What must be equal for a checkpoint to be continued (data, model, batches), and what may
  /// change with a notice (rates); each as (name, value).
  std::vector<std::pair<std::string, std::string>> must_match, may_change;
  /// Tensors beside the trained ones that steps change in place (running statistics): they are
  /// stored and restored, averaged and kept with them.
  std::vector<std::pair<std::string, at::Tensor>> buffers;
  /// Above 0: an average of the trained tensors and float buffers, average = ema * average + (1 -
  /// ema) * tensor after each step, beginning with their first values. It is what is evaluated and
  /// what stays.
  double ema = 0;
  /// Measured every `evaluate_every` steps (0: only at the end) and at the end. Empty: never.
  std::function<Evaluation()> evaluate;
  std::int64_t evaluate_every = 0;
  bool keep_best = true;        // the tensors of the lowest loss are what stays, else the last
  std::string unit = "tokens";  // what StepGradients::tokens counts: images, say
  /// Called once before the first step of this process, with its number: for work that depends on
  /// how much is left. An Interrupted from it leaves the run folder in place.
  std::function<void(std::int64_t first_step)> prepare;
};

/// Mean loss of a whole batch and its gradients in float32, one per trained tensor.
struct StepGradients {
  double loss = 0;
  std::int64_t tokens = 0;  // tokens (or what TrainOptions::unit says) read, for the rate
  std::vector<at::Tensor> gradients;
};
/// Step numbers count from 0. Must be a pure function of the step and the trained tensors: resume
/// depends on it.
using StepFunction = std::function<StepGradients(std::int64_t step)>;

/// A step that stays on the device of its tensors: nothing in it asks the host, so on CUDA all of
/// it, the update included, is recorded once per batch shape and replayed as one graph. The rate is
/// an input of the graph. For small models, whose steps otherwise wait for launches.
struct DeviceStep {
  /// What differs from step to step, a pure function of its number; the first has one row per item
  /// of the batch. On any device.
  std::function<std::vector<at::Tensor>(std::int64_t step)> inputs;
  /// inputs on the device -> the mean loss (a scalar), then the float32 gradients, one per trained
  /// tensor. A pure function of its inputs, the trained tensors and the buffers.
  std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)> loss_and_gradients;
  bool record = true;
};

struct TrainResult {
  std::int64_t steps = 0, resumed_from = 0, tokens = 0;
  double seconds = 0;                                        // in steps, resumed parts included
  std::vector<double> losses, rates;                         // one per step
  std::vector<std::pair<std::int64_t, double>> evaluations;  // (steps done, loss)
  std::int64_t best_step = 0;  // of the lowest loss; 0 without evaluation
};

/// Runs steps until schedule.steps, continuing from run_dir/checkpoints when `run` was resumed and
/// holds one. Writes metrics rows (step counted from 1: loss, lr, grad_norm, tokens_per_second or
/// another unit's).
/// The last step is checkpointed. A loss or gradient that is not finite throws Error(kInput) naming
/// the step before anything is updated, the last checkpoint stays. Interrupted after a stop
/// request, with a checkpoint saved. Resuming with other values in `must_match` is Error(kUsage),
/// naming each.
TrainResult train(const std::vector<TrainedTensor>& tensors, const StepFunction& gradients_of,
                  const TrainOptions& options, RunFolder& run, Reporter& reporter,
                  const StopToken& stop);

/// The same with a step of its own update. A bad loss is seen after the update it made, in memory;
/// what is on disk is as above. Costs a copy of tensors and optimizer state when a checkpoint is
/// due.
TrainResult train(const std::vector<TrainedTensor>& tensors, const DeviceStep& step,
                  const TrainOptions& options, RunFolder& run, Reporter& reporter,
                  const StopToken& stop);

}  // namespace espalier
