// The training loop and what a checkpoint must hold to continue it bit by bit.
#include "espalier/train/train_loop.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/train/checkpoint.h"
#include "espalier/train/recorded_steps.h"
#include "espalier/train/weight_average.h"

namespace espalier {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Recordings of a device step: whole batches, the last of an epoch, and room for more.
constexpr std::size_t kMaxGraphs = 4;

class Loop {
 public:
  Loop(const std::vector<TrainedTensor>& tensors, const TrainOptions& options, RunFolder& run,
       Reporter& reporter)
      : tensors_(tensors),
        options_(options),
        run_(run),
        reporter_(reporter),
        optimizer_(masters(), options.optimizer),
        rate_name_(options.unit + "_per_second") {
    for (const TrainedTensor& t : tensors_) state_.emplace_back(t.name, t.master);
    state_.insert(state_.end(), options.buffers.begin(), options.buffers.end());
    if (options_.ema > 0) {
      std::vector<at::Tensor> all;
      for (const auto& [name, tensor] : state_) all.push_back(tensor);
      average_ = WeightAverage(std::move(all), options_.ema);
    }
  }

  /// Continues from the newest checkpoint of a resumed run; false when there is none.
  bool restore();
  void step(const StepFunction& gradients_of);
  void step(const DeviceStep& work);
  /// Measures the held-out loss when it is due; true when it did.
  bool evaluate();
  void save() { save(stored()); }
  void save(NamedTensors tensors);
  /// The tensors of the best evaluation, or the average, into their places for good.
  void finish();
  bool done() const { return result.steps >= options_.schedule.steps; }
  std::string saved_text() const {
    return format("checkpoint of step {} saved in {}; the same command with --resume continues",
                  saved_, run_.folder().string());
  }
  std::int64_t saved_step() const { return saved_; }

  TrainResult result;

 private:
  std::vector<at::Tensor> masters() const {
    std::vector<at::Tensor> all;
    for (const TrainedTensor& t : tensors_) all.push_back(t.master);
    return all;
  }
  /// What a checkpoint holds beside the best: handles of what is trained and its optimizer's state.
  NamedTensors stored() const;
  bool checkpoint_due() const {
    return options_.checkpoint_every > 0 && result.steps > 0 &&
           result.steps % options_.checkpoint_every == 0;
  }
  /// Counts a step and writes its row.
  void record(double loss, double rate, double norm, std::int64_t tokens, double seconds);
  void check_settings(const Json& stored);
  void restore_best(const LoadedCheckpoint& checkpoint, const Json& state);
  void require_finite(double value, const char* what) const;

  /// Exchanges the average and what is trained; nothing without an average.
  void swap_average() {
    average_.swap();
    if (average_.exists()) refresh_weights(tensors_);
  }

  const std::vector<TrainedTensor>& tensors_;
  const TrainOptions& options_;
  RunFolder& run_;
  Reporter& reporter_;
  Optimizer optimizer_;
  std::string rate_name_;
  std::int64_t saved_ = -1;
  NamedTensors state_;            // masters, then buffers
  WeightAverage average_;         // of state_
  std::vector<at::Tensor> best_;  // of state_, on the CPU, of result.best_step
  std::optional<RecordedSteps> recorded_;
  std::vector<at::Tensor> next_inputs_;  // of a device step, made while the one before ran
};

Json settings_json(const Settings& settings) {
  Json json = Json::object();
  for (const auto& [name, value] : settings) json[name] = value;
  return json;
}

void Loop::check_settings(const Json& stored) {
  const auto differing = [&](const char* key, const Settings& settings, const auto& report) {
    if (!stored.contains(key)) return;
    for (const auto& [name, value] : settings) {
      const std::string before = stored[key].value(name, "");
      if (before != value)
        report(format("{} was {} in the checkpointed run and is {} now", name, before, value));
    }
  };
  ProblemList problems(ErrorKind::kUsage, run_.folder().string());
  differing("must_match", options_.must_match,
            [&](std::string text) { problems.add(std::move(text)); });
  problems.throw_if_any("repeat the command of the first run, or drop --resume to start afresh");
  differing("may_change", options_.may_change,
            [&](const std::string& text) { reporter_.warn(text); });
}

bool Loop::restore() {
  if (!run_.resumed()) return false;
  const auto checkpoint = load_newest_checkpoint(run_.run_dir() / "checkpoints");
  if (!checkpoint) return false;
  const Json state = parse_json(checkpoint->state_json, "checkpoint state");
  check_settings(state);
  if (checkpoint->step > options_.schedule.steps) {
    throw Error(ErrorKind::kUsage, run_.folder().string(),
                format("the checkpoint is of step {}, but only {} steps were asked for",
                       checkpoint->step, options_.schedule.steps))
        .hint(
            format("pass --steps {} or more, or drop --resume to start afresh", checkpoint->step));
  }
  for (const auto& [name, tensor] : state_) restore_tensor(*checkpoint, name, tensor);
  for (std::size_t i = 0; i < average_.values().size(); ++i)
    restore_tensor(*checkpoint, "average." + state_[i].first, average_.values()[i]);
  for (const auto& [kind, values] : optimizer_.states())
    for (std::size_t i = 0; i < values.size(); ++i)
      restore_tensor(*checkpoint, kind + "." + tensors_[i].name, values[i]);
  refresh_weights(tensors_);
  restore_best(*checkpoint, state);
  optimizer_.set_steps(checkpoint->step);
  result.steps = result.resumed_from = saved_ = checkpoint->step;
  try {
    result.tokens = state.at("tokens").get<std::int64_t>();
    result.seconds = state.at("seconds").get<double>();
    result.losses = state.at("losses").get<std::vector<double>>();
    result.rates = state.at("rates").get<std::vector<double>>();
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorKind::kInput, "checkpoint state", e.what())
        .hint("drop --resume to start afresh");
  }
  run_.truncate_metrics(result.steps + 1);
  run_.keep();
  reporter_.info(format("continuing after step {} of {}", result.steps, options_.schedule.steps));
  return true;
}

void Loop::restore_best(const LoadedCheckpoint& checkpoint, const Json& state) {
  if (!options_.evaluate || !state.contains("evaluations")) return;
  for (const Json& row : state["evaluations"])
    result.evaluations.emplace_back(row.at(0).get<std::int64_t>(), row.at(1).get<double>());
  result.best_step = state.value("best_step", std::int64_t{0});
  if (result.best_step == 0 || !options_.keep_best) return;
  for (const auto& [name, tensor] : state_) {
    best_.push_back(at::empty(tensor.sizes(), tensor.scalar_type()));
    restore_tensor(checkpoint, "best." + name, best_.back());
  }
}

bool Loop::evaluate() {
  const std::int64_t every = options_.evaluate_every;
  if (!options_.evaluate || !(done() || (every > 0 && result.steps % every == 0))) return false;
  if (!result.evaluations.empty() && result.evaluations.back().first == result.steps) return false;
  swap_average();
  Evaluation measured;
  try {
    measured = options_.evaluate();
  } catch (const Interrupted&) {
    swap_average();
    save();
    throw Interrupted{saved_text()};
  }
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto& [step, value] : result.evaluations) lowest = std::min(lowest, value);
  result.evaluations.emplace_back(result.steps, measured.loss);
  if (measured.metrics.empty())
    run_.metrics(result.steps, {{"held_out_loss", measured.loss}});
  else
    run_.metrics(result.steps, measured.metrics);
  if (measured.loss < lowest || result.best_step == 0) {
    result.best_step = result.steps;
    best_.clear();
    if (options_.keep_best)
      for (const auto& [name, tensor] : state_)
        best_.push_back(tensor.to(at::kCPU, tensor.scalar_type(), /*non_blocking=*/false,
                                  /*copy=*/true));
  }
  swap_average();
  return true;
}

void Loop::finish() {
  swap_average();
  if (best_.empty() || result.best_step == result.steps) return;
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < best_.size(); ++i) state_[i].second.copy_(best_[i]);
  refresh_weights(tensors_);
  reporter_.info(
      format("the tensors of step {} stay: their held-out loss was the lowest", result.best_step));
}

NamedTensors Loop::stored() const {
  NamedTensors all = state_;
  for (std::size_t i = 0; i < average_.values().size(); ++i)
    all.emplace_back("average." + state_[i].first, average_.values()[i]);
  for (const auto& [kind, values] : optimizer_.states())
    for (std::size_t i = 0; i < values.size(); ++i)
      all.emplace_back(kind + "." + tensors_[i].name, values[i]);
  return all;
}

void Loop::save(NamedTensors tensors) {
  if (saved_ == result.steps) return;
  Json state;
  state["must_match"] = settings_json(options_.must_match);
  state["may_change"] = settings_json(options_.may_change);
  state["tokens"] = result.tokens;
  state["seconds"] = result.seconds;
  state["losses"] = result.losses;
  state["rates"] = result.rates;
  if (options_.evaluate) {
    state["evaluations"] = result.evaluations;
    state["best_step"] = result.best_step;
    for (std::size_t i = 0; i < best_.size(); ++i)
      tensors.emplace_back("best." + state_[i].first, best_[i]);
  }
  save_checkpoint(run_.run_dir() / "checkpoints", result.steps, tensors, state.dump());
  saved_ = result.steps;
  run_.keep();
}

void Loop::require_finite(double value, const char* what) const {
  if (std::isfinite(value)) return;
  Error error(ErrorKind::kInput, format("step {}", result.steps + 1),
              format("the {} is {}", what, value));
  throw std::move(error).hint(
      saved_ > 0
          ? format(
                "use a lower --lr; the checkpoint of step {} is kept, --resume continues from it",
                saved_)
          : "use a lower --lr, or check the weights with `espalier verify`");
}

void Loop::record(double loss, double rate, double norm, std::int64_t tokens, double seconds) {
  ++result.steps;
  result.tokens += tokens;
  result.seconds += seconds;
  result.losses.push_back(loss);
  result.rates.push_back(rate);
  run_.metrics(result.steps, {{"loss", loss},
                              {"lr", rate},
                              {"grad_norm", norm},
                              {rate_name_, static_cast<double>(tokens) / seconds}});
}

void Loop::step(const StepFunction& gradients_of) {
  const Stopwatch watch;
  double save_seconds = 0;
  const double rate = learning_rate(options_.schedule, result.steps);
  const bool due = checkpoint_due();
  // The forward pass moves the buffers on, and the checkpoint is of the state before it.
  NamedTensors before;
  if (due) before = stored();
  for (std::size_t i = tensors_.size(); due && i < state_.size(); ++i)
    before[i].second = before[i].second.clone();
  StepGradients batch = gradients_of(result.steps);
  ESPALIER_ASSERT(batch.gradients.size() == tensors_.size());
  require_finite(batch.loss, "loss");
  const double norm = clip_by_global_norm(batch.gradients, options_.clip);
  require_finite(norm, "gradient norm");
  // Here, not after the update that made them: only now is it known that these weights give a
  // finite loss, so the checkpoint that a broken run leaves behind is one worth going on from.
  if (due) {
    const Stopwatch saving;
    save(std::move(before));
    save_seconds = saving.seconds();
  }
  optimizer_.step(batch.gradients, rate);
  refresh_weights(tensors_);
  average_.update();
  record(batch.loss, rate, norm, batch.tokens, watch.seconds() - save_seconds);
}

void Loop::step(const DeviceStep& work) {
  const Stopwatch watch;
  double save_seconds = 0;
  const at::Device device = tensors_.front().master.device();
  if (!recorded_) recorded_.emplace(device, work.record, kMaxGraphs, reporter_);
  const double rate = learning_rate(options_.schedule, result.steps);
  // The step ends with the update: what is to be saved once its loss is known must be kept aside.
  const bool due = checkpoint_due();
  NamedTensors before;
  if (due) before = stored();
  for (auto& [name, tensor] : before) tensor = tensor.clone();

  std::vector<at::Tensor> inputs =
      next_inputs_.empty() ? work.inputs(result.steps) : std::move(next_inputs_);
  next_inputs_.clear();
  const std::int64_t items = inputs.front().size(0);
  // The fused kernels read the rate from the device as float32, on the CPU as a number.
  inputs.push_back(at::scalar_tensor(rate, device.is_cpu() ? at::kDouble : at::kFloat));
  const auto body = [&](const std::vector<at::Tensor>& t) {
    std::vector<at::Tensor> out = work.loss_and_gradients({t.begin(), t.end() - 1});
    ESPALIER_ASSERT(out.size() == tensors_.size() + 1);
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients(std::make_move_iterator(out.begin() + 1),
                                      std::make_move_iterator(out.end()));
    const at::Tensor norm = clip_on_device(gradients, options_.clip);
    optimizer_.step(gradients, t.back());
    refresh_weights(tensors_);
    average_.update();
    return std::vector<at::Tensor>{at::stack({out.front().to(at::kDouble), norm})};
  };
  const at::Tensor outcome = recorded_->run(body, std::move(inputs)).front();
  // Made while the device computes.
  if (result.steps + 1 < options_.schedule.steps) next_inputs_ = work.inputs(result.steps + 1);
  const at::Tensor numbers = outcome.to(at::kCPU);
  const double loss = numbers[0].item<double>(), norm = numbers[1].item<double>();
  require_finite(loss, "loss");
  require_finite(norm, "gradient norm");
  if (due) {
    const Stopwatch saving;
    save(std::move(before));
    save_seconds = saving.seconds();
  }
  record(loss, rate, norm, items, watch.seconds() - save_seconds);
}

template <class Step>
TrainResult run_loop(const std::vector<TrainedTensor>& tensors, const Step& one_step,
                     const TrainOptions& options, RunFolder& run, Reporter& reporter,
                     const StopToken& stop) {
  Loop loop(tensors, options, run, reporter);
  // Without a checkpoint a resumed run starts over: rows of the killed attempt must not stay in the
  // metrics.
  if (!loop.restore() && run.resumed()) run.truncate_metrics(0);
  if (options.prepare) {
    try {
      options.prepare(loop.result.steps);
    } catch (const Interrupted&) {
      run.keep();
      throw;
    }
  }
  const auto phase = reporter.phase("training", options.schedule.steps, "steps");
  if (loop.result.steps > 0) loop.evaluate();  // when the checkpoint was saved before it
  while (!loop.done()) {
    if (stop.stop_requested()) {
      loop.save();
      throw Interrupted{loop.saved_text()};
    }
    loop.step(one_step);
    phase->update(loop.result.steps, format("loss {:.4f}", loop.result.losses.back()));
    loop.evaluate();
  }
  loop.save();
  loop.finish();
  return std::move(loop.result);
}

}  // namespace

TrainResult train(const std::vector<TrainedTensor>& tensors, const StepFunction& gradients_of,
                  const TrainOptions& options, RunFolder& run, Reporter& reporter,
                  const StopToken& stop) {
  return run_loop(tensors, gradients_of, options, run, reporter, stop);
}

TrainResult train(const std::vector<TrainedTensor>& tensors, const DeviceStep& step,
                  const TrainOptions& options, RunFolder& run, Reporter& reporter,
                  const StopToken& stop) {
  ESPALIER_ASSERT(!tensors.empty());
  return run_loop(tensors, step, options, run, reporter, stop);
}

}  // namespace espalier
