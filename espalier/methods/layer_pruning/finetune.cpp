// The training job: which tensors train, how a batch becomes gradients, when the prefix cache pays.
#include "espalier/methods/layer_pruning/finetune.h"

#include <algorithm>
#include <optional>
#include <system_error>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/data/row_order.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/methods/layer_pruning/prefix_cache.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/train/train_loop.h"

namespace espalier::layer_pruning {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr std::int64_t kPrefixTokens = 4096;        // of one forward of the prefix pass
constexpr std::uint64_t kDiskReserve = 1ull << 30;  // left free beside the cache

/// First layer that trains: everything below is frozen.
std::int64_t first_trained(const Decoder& model, const FinetuneOptions& options) {
  return options.mode == TuneMode::kFull ? 0 : model.num_layers() - options.last;
}

/// Untying adds a tensor, so it comes first. Bytes added; 0 when the head was a tensor of its own.
std::uint64_t untie(Decoder& model, const FinetuneOptions& options, Reporter& reporter) {
  if (options.mode != TuneMode::kPartial || !model.config().tied_embeddings) return 0;
  const at::Tensor& head = model.head_weight();
  const std::uint64_t bytes = head.nbytes();
  reporter.info(
      format("the output head shares the embedding's matrix; training it unties the two: a {} "
             "lm_head.weight of {} is added",
             shape_text(head.sizes()), to_string(Bytes{static_cast<std::int64_t>(bytes)})));
  model.untie_head();
  return bytes;
}

std::vector<TrainedTensor> mark_trained(Decoder& model, const std::vector<std::string>& names,
                                        const DecoderCheckpoint* source) {
  const bool use_source =
      source && source->config().num_layers == model.num_layers() && model.type() != at::kFloat;
  std::vector<TrainedTensor> trained;
  model.for_each_parameter([&](const std::string& name, at::Tensor& slot) {
    if (!std::binary_search(names.begin(), names.end(), name)) return;
    at::Tensor full;
    if (use_source)
      full = source->load(name == kHead && !source->has(kHead) ? kEmbedding : name, at::kFloat,
                          model.device());
    trained.push_back(make_trained(name, slot, full));
  });
  return trained;
}

/// Everything a step needs: rows, their order, the model, and the cache when there is one.
class Job {
 public:
  Job(Decoder& model, const FinetuneOptions& options, at::Tensor ids)
      : model_(model),
        options_(options),
        ids_(std::move(ids)),
        order_(ids_.size(0), options.batch_size, options.seed),
        context_(model.context(options.seq_len)),
        first_(first_trained(model, options)),
        micro_(options.micro_batch > 0 ? options.micro_batch : options.batch_size) {}

  void set_weights(const std::vector<TrainedTensor>& tensors) {
    for (const TrainedTensor& t : tensors) weights_.push_back(t.weight);
  }
  /// Decides about the cache and fills it.
  void prepare_cache(const std::filesystem::path& folder, const std::string& frozen,
                     std::int64_t steps_left, Reporter& reporter, const StopToken& stop);
  StepGradients gradients(std::int64_t step, std::int64_t steps);

  std::uint64_t cache_bytes = 0;
  double cache_seconds = 0;

 private:
  at::Tensor prefix(const std::vector<std::int64_t>& rows, const at::Tensor& ids) const;
  std::int64_t prefix_rows() const;

  Decoder& model_;
  const FinetuneOptions& options_;
  at::Tensor ids_;
  RowOrder order_;
  AttentionContext context_;
  std::int64_t first_, micro_;
  std::vector<at::Tensor> weights_;
  std::optional<HiddenStateFile> cache_;
};

std::int64_t Job::prefix_rows() const {
  // float32 products on the CPU give a row the same bits in any batch; elsewhere the cache is
  // computed in the very shape of training, so that cached and uncached runs call the same kernels.
  const bool any_shape = model_.device().is_cpu() && model_.type() == at::kFloat;
  return any_shape ? std::max<std::int64_t>(1, kPrefixTokens / options_.seq_len)
                   : std::min(micro_, ids_.size(0));
}

void Job::prepare_cache(const std::filesystem::path& folder, const std::string& frozen,
                        std::int64_t steps_left, Reporter& reporter, const StopToken& stop) {
  if (options_.prefix_cache == PrefixCache::kOff || first_ == 0 || steps_left == 0) return;
  const Stopwatch watch;
  const HiddenStateFile::Shape shape{ids_.size(0), options_.seq_len, model_.config().hidden_size,
                                     model_.type()};
  const std::uint64_t bytes =
      prefix_cache_bytes(shape.rows, shape.seq_len, shape.hidden, shape.type);
  // In one pass over the data every row is computed once with or without a cache.
  const bool repeats = steps_left > order_.steps_per_epoch();
  const bool exists = std::filesystem::exists(folder);
  if (!repeats && !exists) return;
  const std::string key = prefix_key(frozen, ids_, model_);
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
    reporter.info(format(
        "prefix cache: {} rows x {} tokens entering layer {}, {} on disk while training",
        shape.rows, shape.seq_len, first_, to_string(Bytes{static_cast<std::int64_t>(bytes)})));
  }
  HiddenStateFile file(folder, key, shape);
  fill_prefix_cache(model_, first_, ids_, prefix_rows(), file, reporter, stop);
  cache_ = std::move(file);
  cache_bytes = bytes;
  cache_seconds = watch.seconds();
}

/// Hidden states of these rows [n, tokens, d] where training begins.
at::Tensor Job::prefix(const std::vector<std::int64_t>& rows, const at::Tensor& ids) const {
  if (cache_) return cache_->read(rows).to(model_.device());
  if (first_ == 0) return model_.embed(ids);
  const at::NoGradGuard no_grad;
  return model_.run_layers(model_.embed(ids), 0, first_, context_);
}

StepGradients Job::gradients(std::int64_t step, std::int64_t steps) {
  const std::vector<std::int64_t> batch = order_.batch(step);
  if (cache_ && step + 1 < steps && order_.epoch_of(step + 1) == order_.epoch_of(step))
    cache_->will_need(order_.batch(step + 1));
  const std::int64_t tokens = options_.seq_len;
  const double scale =
      1.0 / static_cast<double>(static_cast<std::int64_t>(batch.size()) * (tokens - 1));
  StepGradients result;
  result.tokens = static_cast<std::int64_t>(batch.size()) * tokens;
  for (std::size_t begin = 0; begin < batch.size(); begin += static_cast<std::size_t>(micro_)) {
    const std::size_t end = std::min(batch.size(), begin + static_cast<std::size_t>(micro_));
    const std::vector<std::int64_t> rows(batch.begin() + static_cast<std::ptrdiff_t>(begin),
                                         batch.begin() + static_cast<std::ptrdiff_t>(end));
    const at::Tensor ids = ids_.index_select(0, at::tensor(rows, at::kLong)).to(model_.device());
    const at::Tensor h =
        model_.run_layers(prefix(rows, ids), first_, model_.num_layers(), context_);
    const at::Tensor normed = model_.final_norm(h.narrow(1, 0, tokens - 1));
    const at::Tensor targets = ids.narrow(1, 1, tokens - 1).reshape({-1});
    const at::Tensor loss = linear_cross_entropy(normed.reshape({-1, normed.size(-1)}),
                                                 model_.head_weight(), targets, scale);
    const std::vector<at::Tensor> grads = torch::autograd::grad({loss}, weights_);
    result.loss += loss.item<double>();
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < grads.size(); ++i) {
      if (begin == 0) {
        result.gradients.push_back(grads[i].to(at::kFloat));
      } else {
        result.gradients[i].add_(grads[i]);
      }
    }
  }
  return result;
}

TrainOptions train_options(const FinetuneOptions& o, const TokenText& text, const Decoder& model,
                           std::int64_t steps) {
  TrainOptions options;
  options.schedule = {o.lr, o.warmup, steps, o.decay};
  options.adamw = {o.beta1, o.beta2, o.eps, o.weight_decay};
  options.clip = o.clip;
  options.checkpoint_every = o.checkpoint_every;
  options.must_match = {{"mode", o.mode == TuneMode::kFull ? "full" : "partial"},
                        {"last", format("{}", o.last)},
                        {"seq_len", format("{}", o.seq_len)},
                        {"batch_size", format("{}", o.batch_size)},
                        {"seed", format("{}", o.seed)},
                        {"dtype", std::string(dtype_name(to_dtype(o.compute)))},
                        {"data sha256", text.sha256},
                        {"layers", format("{}", model.num_layers())}};
  options.may_change = {
      {"steps", format("{}", steps)},     {"micro_batch", format("{}", o.micro_batch)},
      {"lr", format("{}", o.lr)},         {"lr_decay", std::string(lr_decay_name(o.decay))},
      {"warmup", format("{}", o.warmup)}, {"weight_decay", format("{}", o.weight_decay)},
      {"beta1", format("{}", o.beta1)},   {"beta2", format("{}", o.beta2)},
      {"eps", format("{}", o.eps)},       {"clip", format("{}", o.clip)}};
  return options;
}

}  // namespace

FinetuneResult finetune(Decoder& model, const TokenText& text, const FinetuneOptions& options,
                        RunFolder& run, Reporter& reporter, const StopToken& stop,
                        const DecoderCheckpoint* source) {
  check_finetune_options(options, model.config());
  ESPALIER_ASSERT(options.compute == model.type());
  Job job(model, options, cut_segments(text, options.seq_len));
  FinetuneResult result;
  result.rows = static_cast<std::int64_t>(text.ids.size()) / options.seq_len;
  const std::int64_t steps = planned_steps(options, result.rows);
  result.untied_bytes = untie(model, options, reporter);
  std::vector<std::string> names = trained_names(model, options.mode, options.last);
  std::sort(names.begin(), names.end());
  const std::vector<TrainedTensor> trained = mark_trained(model, names, source);
  ESPALIER_ASSERT(trained.size() == names.size());
  job.set_weights(trained);
  result.trainable_parameters = count_elements(trained);

  TrainOptions loop = train_options(options, text, model, steps);
  const std::int64_t first = first_trained(model, options);
  const std::string frozen = frozen_digest(model, first);
  loop.must_match.emplace_back("frozen weights", frozen);
  loop.prepare = [&](std::int64_t first_step) {
    job.prepare_cache(run.run_dir() / "prefix_cache", frozen, steps - first_step, reporter, stop);
  };
  const StepFunction gradients = [&](std::int64_t step) { return job.gradients(step, steps); };
  TrainResult trained_result = train(trained, gradients, loop, run, reporter, stop);
  freeze(trained);
  std::error_code ignored;
  std::filesystem::remove_all(run.run_dir() / "prefix_cache", ignored);

  result.steps = trained_result.steps;
  result.resumed_from = trained_result.resumed_from;
  result.tokens = trained_result.tokens;
  result.losses = std::move(trained_result.losses);
  result.rates = std::move(trained_result.rates);
  result.loss_first = result.losses.front();
  result.loss_last = result.losses.back();
  result.seconds = trained_result.seconds;
  result.tokens_per_second = static_cast<double>(result.tokens) / result.seconds;
  result.prefix_cache_bytes = job.cache_bytes;
  result.prefix_seconds = job.cache_seconds;
  for (const TrainedTensor& t : trained) result.trained.emplace(t.name, t.master);
  return result;
}

}  // namespace espalier::layer_pruning
