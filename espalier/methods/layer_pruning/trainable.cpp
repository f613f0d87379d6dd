// See trainable.h.
#include "espalier/methods/layer_pruning/trainable.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

/// Untying adds a tensor. Bytes added; 0 when the head was a tensor of its own.
std::uint64_t untie(Decoder& model, Reporter& reporter) {
  if (!model.config().tied_embeddings) return 0;
  const at::Tensor& head = model.head_weight();
  const std::uint64_t bytes = head.nbytes();
  reporter.info(
      format("the output head shares the embedding's matrix; training it unties the two: a {} "
             "lm_head.weight of {} is added",
             shape_text(head.sizes()), to_string(Bytes{static_cast<std::int64_t>(bytes)})));
  model.untie_head();
  return bytes;
}

void add(Trainable& trainable, std::string name, at::Tensor& slot, const at::Tensor& full) {
  trainable.layers.push_back(layer_of_tensor(name));
  trainable.embedding = trainable.embedding || name == kEmbedding;
  trainable.tensors.push_back(make_trained(std::move(name), slot, full));
}

/// Weights of the model under these names.
void mark_weights(Decoder& model, std::vector<std::string> names, const DecoderCheckpoint* source,
                  Trainable& trainable) {
  const bool use_source =
      source && source->config().num_layers == model.num_layers() && model.type() != at::kFloat;
  std::sort(names.begin(), names.end());
  model.for_each_parameter([&](const std::string& name, at::Tensor& slot) {
    if (!std::binary_search(names.begin(), names.end(), name)) return;
    at::Tensor full;
    if (use_source)
      full = source->load(name == kHead && !source->has(kHead) ? kEmbedding : name, at::kFloat,
                          model.device());
    add(trainable, name, slot, full);
  });
}

/// Names of the tensors in fully trained modules ("lm_head", "norm", "embed_tokens").
std::vector<std::string> saved_names(Decoder& model, const PeftConfig& config) {
  std::vector<std::string> names;
  const ModulePattern modules{config.modules_to_save, {}};
  if (modules.empty()) return names;
  model.for_each_parameter([&](const std::string& name, at::Tensor&) {
    const std::size_t dot = name.rfind('.');
    if (modules.matches(std::string_view(name).substr(0, dot))) names.push_back(name);
  });
  if (names.empty()) {
    throw Error(ErrorKind::kUsage, "--modules-to-save",
                format("no module of the model is called {}", config.modules_to_save.front()))
        .hint("--modules-to-save lm_head");
  }
  return names;
}

void mark_adapters(Decoder& model, const FinetuneOptions& options, const DecoderCheckpoint* source,
                   Reporter& reporter, Trainable& trainable) {
  const PeftConfig& config = options.adapter;
  if (config.dropout > 0) {
    trainable.dropout = std::make_shared<DropoutState>();
    trainable.dropout->seed = options.seed;
    trainable.dropout->counter =
        at::zeros({}, at::TensorOptions().dtype(at::kLong).device(model.device()));
  }
  bool there = false;
  for_each_adapter_tensor(model, [&](const std::string&, at::Tensor&) { there = true; });
  if (there) {
    for_each_linear(model, [&](const std::string&, Linear& linear) {
      if (linear.adapter) linear.adapter->masks = trainable.dropout;
    });
  } else {
    const std::int64_t count = attach_adapters(model, config, options.seed, trainable.dropout);
    reporter.info(format("{} adapters of rank {}", count, config.rank));
  }
  if (std::find(config.modules_to_save.begin(), config.modules_to_save.end(), "lm_head") !=
      config.modules_to_save.end())
    trainable.untied_bytes = untie(model, reporter);
  for_each_adapter_tensor(
      model, [&](const std::string& name, at::Tensor& slot) { add(trainable, name, slot, {}); });
  mark_weights(model, saved_names(model, config), source, trainable);
}

}  // namespace

Trainable make_trainable(Decoder& model, const FinetuneOptions& options,
                         const DecoderCheckpoint* source, Reporter& reporter) {
  Trainable trainable;
  if (uses_adapters(options.mode)) {
    mark_adapters(model, options, source, reporter, trainable);
  } else {
    if (options.mode == TuneMode::kPartial) trainable.untied_bytes = untie(model, reporter);
    const std::vector<std::string> names = trained_names(model, options.mode, options.last);
    mark_weights(model, names, source, trainable);
    ESPALIER_ASSERT(trainable.tensors.size() == names.size());
  }
  trainable.first_layer = model.num_layers();
  for (const std::int64_t layer : trainable.layers)
    if (layer >= 0) trainable.first_layer = std::min(trainable.first_layer, layer);
  if (trainable.embedding) trainable.first_layer = 0;
  return trainable;
}

}  // namespace espalier::layer_pruning
