// The training job: which tensors train, how a batch becomes gradients, when the prefix cache pays.
#include "espalier/methods/layer_pruning/finetune.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <system_error>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/data/row_order.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/methods/layer_pruning/prefix_cache.h"
#include "espalier/methods/layer_pruning/trainable.h"
#include "espalier/methods/layer_pruning/tuning_batch.h"
#include "espalier/methods/layer_pruning/tuning_step.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/train/train_loop.h"

namespace espalier::layer_pruning {
namespace {

constexpr std::int64_t kPrefixTokens = 4096;        // of one forward of the prefix pass
constexpr std::uint64_t kDiskReserve = 1ull << 30;  // left free beside the cache
constexpr std::int64_t kDeviceShare =
    4;  // a cache of up to 1/4 of a device's free memory lies there

/// Everything a step needs: rows, their order, the model, and the cache when there is one.
class Job {
 public:
  Job(Decoder& model, const FinetuneOptions& options, const TrainingRows& rows,
      const Trainable& trainable, Reporter& reporter)
      : model_(model),
        options_(options),
        rows_(rows),
        trainable_(trainable),
        order_(rows.size(), options.batch_size, options.seed),
        step_(model, trainable, options, reporter),
        form_(batch_form(model.device())),
        micro_(static_cast<std::size_t>(options.micro_batch > 0 ? options.micro_batch
                                                                : options.batch_size)) {}

  /// Decides about the cache and fills it.
  void prepare_cache(const std::filesystem::path& folder, const std::string& frozen,
                     std::int64_t steps_left, Reporter& reporter, const StopToken& stop);
  StepGradients gradients(std::int64_t step, std::int64_t steps);

  std::uint64_t cache_bytes = 0;
  double cache_seconds = 0;

 private:
  at::Tensor cached_prefix(const TuningBatch& batch, const std::vector<std::int64_t>& rows) const;
  std::int64_t prefix_rows() const;
  void move_cache_to_device();

  Decoder& model_;
  const FinetuneOptions& options_;
  const TrainingRows& rows_;
  const Trainable& trainable_;
  RowOrder order_;
  TuningStep step_;
  BatchForm form_;
  std::size_t micro_;
  std::optional<HiddenStateFile> cache_;
  at::Tensor device_cache_;  // all rows of cache_, one behind the other, when the device has room
  std::vector<std::int64_t> row_starts_;  // in device_cache_
};

std::int64_t Job::prefix_rows() const {
  // float32 products on the CPU give a row the same bits in any batch; elsewhere the cache is
  // computed in the very shape of training, so that cached and uncached runs call the same kernels.
  const bool any_shape = model_.device().is_cpu() && model_.type() == at::kFloat;
  return any_shape ? std::max<std::int64_t>(1, kPrefixTokens / rows_.longest())
                   : std::min(static_cast<std::int64_t>(micro_), rows_.size());
}

void Job::prepare_cache(const std::filesystem::path& folder, const std::string& frozen,
                        std::int64_t steps_left, Reporter& reporter, const StopToken& stop) {
  if (options_.prefix_cache == PrefixCache::kOff || trainable_.first_layer == 0 || steps_left == 0)
    return;
  const Stopwatch watch;
  const HiddenStateFile::Shape shape{rows_.lengths(), model_.config().hidden_size, model_.type()};
  const std::uint64_t bytes = prefix_cache_bytes(rows_.tokens(), shape.hidden, shape.type);
  // In one pass over the data every row is computed once with or without a cache.
  const bool repeats = steps_left > order_.steps_per_epoch();
  const bool exists = std::filesystem::exists(folder);
  if (!repeats && !exists) return;
  const std::string key = prefix_key(frozen, rows_, model_);
  if (!HiddenStateFile::is_complete(folder, key, shape)) {
    if (!repeats) return;
    std::error_code code;
    const std::filesystem::space_info space = std::filesystem::space(folder.parent_path(), code);
    if (!exists && !code && space.available < bytes + kDiskReserve) {
      reporter.warn(format(
          "prefix cache is off: it needs {} of disk and {} are free; training goes on without it",
          to_string(Bytes{static_cast<std::int64_t>(bytes)}),
          to_string(Bytes{static_cast<std::int64_t>(space.available)})));
      return;
    }
    reporter.info(
        format("prefix cache: {} rows, {} tokens entering layer {}, {} on disk while training",
               rows_.size(), format_count(rows_.tokens()), trainable_.first_layer,
               to_string(Bytes{static_cast<std::int64_t>(bytes)})));
  }
  HiddenStateFile file(folder, key, shape);
  const PrefixFunction prefix = [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> part(static_cast<std::size_t>(end - begin));
    std::iota(part.begin(), part.end(), begin);
    const TuningBatch batch = make_tuning_batch(rows_, part, form_);
    return take_rows(batch, step_.prefix(batch));
  };
  fill_prefix_cache(prefix, rows_.size(), prefix_rows(), file, reporter, stop);
  cache_ = std::move(file);
  if (static_cast<std::int64_t>(bytes) <= free_device_bytes(model_.device()) / kDeviceShare)
    move_cache_to_device();
  cache_bytes = bytes;
  cache_seconds = watch.seconds();
}

/// Spares every step the way from the disk over the bus.
void Job::move_cache_to_device() {
  device_cache_ = at::empty({rows_.tokens(), model_.config().hidden_size},
                            at::TensorOptions().dtype(model_.type()).device(model_.device()));
  std::int64_t first = 0;
  for (std::int64_t row = 0; row < rows_.size(); ++row) {
    row_starts_.push_back(first);
    device_cache_.narrow(0, first, rows_.length(row)).copy_(cache_->read({row}));
    first += rows_.length(row);
  }
}

/// Undefined without a cache.
at::Tensor Job::cached_prefix(const TuningBatch& batch,
                              const std::vector<std::int64_t>& rows) const {
  if (!cache_) return {};
  if (!device_cache_.defined()) return place_rows(batch, cache_->read(rows));
  std::vector<at::Tensor> parts;
  for (const std::int64_t row : rows)
    parts.push_back(
        device_cache_.narrow(0, row_starts_[static_cast<std::size_t>(row)], rows_.length(row)));
  return place_rows(batch, at::cat(parts));
}

StepGradients Job::gradients(std::int64_t step, std::int64_t steps) {
  const std::vector<std::int64_t> batch = order_.batch(step);
  if (cache_ && !device_cache_.defined() && step + 1 < steps &&
      order_.epoch_of(step + 1) == order_.epoch_of(step))
    cache_->will_need(order_.batch(step + 1));
  std::int64_t predicted = 0;
  for (const std::int64_t row : batch) predicted += predicted_tokens(rows_.row(row));
  const double scale = 1.0 / static_cast<double>(predicted);
  StepGradients result;
  at::Tensor loss;
  for (std::size_t begin = 0; begin < batch.size(); begin += micro_) {
    const std::size_t end = std::min(batch.size(), begin + micro_);
    const std::vector<std::int64_t> rows(batch.begin() + static_cast<std::ptrdiff_t>(begin),
                                         batch.begin() + static_cast<std::ptrdiff_t>(end));
    const TuningBatch part = make_tuning_batch(rows_, rows, form_);
    result.tokens += part.tokens();
    // Dropout masks are numbered through all micro-batches of the run.
    const std::int64_t draw = step * options_.batch_size + static_cast<std::int64_t>(begin);
    MicroGradients micro = step_.gradients(part, scale, cached_prefix(part, rows), draw);
    const at::NoGradGuard no_grad;
    const bool more = end < batch.size();
    if (begin == 0) {
      loss = more ? micro.loss.clone() : micro.loss;
      result.gradients = std::move(micro.gradients);
      // A replayed graph writes its results to the same place each time.
      if (more && !model_.device().is_cpu())
        for (at::Tensor& g : result.gradients) g = g.clone();
    } else {
      loss = loss + micro.loss;
      at::_foreach_add_(result.gradients, micro.gradients);
    }
  }
  result.loss = loss.item<double>();
  return result;
}

/// Loss of the held-out rows now and then, and the tensors of the best.
std::function<Evaluation()> held_out_loss(const Decoder& model, const TrainingRows* held_out,
                                          const StopToken& stop) {
  if (held_out == nullptr || held_out->empty()) return {};
  return [&model, held_out, &stop] {
    return Evaluation{rows_loss(model, *held_out, 4096, stop), {}};
  };
}

TrainOptions train_options(const FinetuneOptions& o, const TrainingRows& rows, const Decoder& model,
                           std::int64_t steps) {
  TrainOptions options;
  options.schedule = {o.lr, o.warmup, steps, o.decay};
  options.optimizer = AdamWOptions{o.beta1, o.beta2, o.eps, o.weight_decay};
  options.clip = o.clip;
  options.checkpoint_every = o.checkpoint_every;
  options.must_match = {{"mode", std::string(tune_mode_name(o.mode))},
                        {"last", format("{}", o.last)},
                        {"batch_size", format("{}", o.batch_size)},
                        {"seed", format("{}", o.seed)},
                        {"dtype", std::string(dtype_name(to_dtype(o.compute)))},
                        {"rows sha256", rows.digest()},
                        {"layers", format("{}", model.num_layers())}};
  if (uses_adapters(o.mode))
    options.must_match.emplace_back("adapter", peft_config_text(o.adapter));
  options.may_change = {
      {"steps", format("{}", steps)},     {"micro_batch", format("{}", o.micro_batch)},
      {"lr", format("{}", o.lr)},         {"lr_decay", std::string(lr_decay_name(o.decay))},
      {"warmup", format("{}", o.warmup)}, {"weight_decay", format("{}", o.weight_decay)},
      {"beta1", format("{}", o.beta1)},   {"beta2", format("{}", o.beta2)},
      {"eps", format("{}", o.eps)},       {"clip", format("{}", o.clip)}};
  return options;
}

}  // namespace

double rows_loss(const Decoder& model, const TrainingRows& rows, std::int64_t batch_tokens,
                 const StopToken& stop) {
  const at::NoGradGuard no_grad;
  const BatchForm form = batch_form(model.device());
  double nll = 0;
  std::int64_t predicted = 0;
  for (std::int64_t first = 0; first < rows.size();) {
    if (stop.stop_requested()) throw Interrupted{};
    std::vector<std::int64_t> part;
    std::int64_t tokens = 0;
    for (; first < rows.size() && (part.empty() || tokens + rows.length(first) <= batch_tokens);
         ++first) {
      part.push_back(first);
      tokens += rows.length(first);
    }
    const TuningBatch batch = make_tuning_batch(rows, part, form);
    const at::Tensor h =
        model.final_norm(model.run_layers(model.embed(batch.ids.to(model.device())), 0,
                                          model.num_layers(), batch_context(model, batch)));
    nll += linear_nll(h.reshape({-1, h.size(-1)}), model.head_weight(),
                      batch.targets.to(model.device()), std::nullopt, model.config().final_softcap)
               .sum(at::kDouble)
               .item<double>();
    predicted += batch.predicted;
  }
  return nll / static_cast<double>(predicted);
}

FinetuneResult finetune(Decoder& model, const TrainingRows& rows, const FinetuneOptions& options,
                        RunFolder& run, Reporter& reporter, const StopToken& stop,
                        const DecoderCheckpoint* source, const TrainingRows* held_out) {
  check_finetune_options(options, model.config());
  check_rows(rows, model.config());
  ESPALIER_ASSERT(options.compute == model.type());
  FinetuneResult result;
  result.rows = rows.size();
  const std::int64_t steps = planned_steps(options, result.rows);
  const Trainable trainable = make_trainable(model, options, source, reporter);
  result.untied_bytes = trainable.untied_bytes;
  result.trainable_parameters = count_elements(trainable.tensors);
  Job job(model, options, rows, trainable, reporter);

  TrainOptions loop = train_options(options, rows, model, steps);
  // Adapters do not hold what they sit on: all of it must be what it was.
  const bool adapters = uses_adapters(options.mode);
  const std::string frozen =
      frozen_digest(model, adapters ? model.num_layers() : trainable.first_layer);
  loop.must_match.emplace_back("frozen weights", frozen);
  loop.prepare = [&](std::int64_t first_step) {
    job.prepare_cache(run.run_dir() / "prefix_cache", frozen, steps - first_step, reporter, stop);
  };
  loop.evaluate = held_out_loss(model, held_out, stop);
  loop.evaluate_every = options.eval_every;
  const StepFunction gradients = [&](std::int64_t step) { return job.gradients(step, steps); };
  TrainResult trained = train(trainable.tensors, gradients, loop, run, reporter, stop);
  freeze(trainable.tensors);
  std::error_code ignored;
  std::filesystem::remove_all(run.run_dir() / "prefix_cache", ignored);

  result.steps = trained.steps;
  result.resumed_from = trained.resumed_from;
  result.tokens = trained.tokens;
  result.losses = std::move(trained.losses);
  result.rates = std::move(trained.rates);
  result.loss_first = result.losses.front();
  result.loss_last = result.losses.back();
  result.seconds = trained.seconds;
  result.tokens_per_second = static_cast<double>(result.tokens) / result.seconds;
  result.held_out = std::move(trained.evaluations);
  result.best_step = trained.best_step;
  result.prefix_cache_bytes = job.cache_bytes;
  result.prefix_seconds = job.cache_seconds;
  for (const TrainedTensor& t : trainable.tensors) result.trained.emplace(t.name, t.master);
  return result;
}

}  // namespace espalier::layer_pruning
