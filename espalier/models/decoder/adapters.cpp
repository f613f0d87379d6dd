// See adapters.h.
#include "espalier/models/decoder/adapters.h"

#include <algorithm>
#include <set>
#include <type_traits>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::string_view kHead = "lm_head.weight";

template <class Module>
void walk(Module& module, const std::string& prefix,
          const std::function<void(const std::string&, Linear&)>& fn) {
  module.visit([&](const char* name, auto& member) {
    using Member = std::decay_t<decltype(member)>;
    const std::string full = prefix + "." + name;
    if constexpr (std::is_same_v<Member, Linear>) {
      // Blocks name every layer that some family has; this one may not be among them.
      if (member.weight.defined() || member.nf4 != nullptr) fn(full, member);
    } else if constexpr (!std::is_same_v<Member, at::Tensor>) {
      walk(member, full, fn);
    }
  });
}

/// An owned float32 copy on `device`.
at::Tensor float_copy(const StoredTensor& stored, at::Device device) {
  return view_bytes(stored.data, stored.dtype, stored.shape, stored.file)
      .to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
}

std::string depth_hint(const PeftFolder& folder, std::int64_t layers) {
  if (folder.layers() <= layers) return "";
  return format("the adapter was trained on {} layers, the model has {}", folder.layers(), layers);
}

}  // namespace

void for_each_linear(Decoder& model, const std::function<void(const std::string&, Linear&)>& fn) {
  for (std::int64_t i = 0; i < model.num_layers(); ++i) {
    std::string prefix = layer_prefix(i);
    prefix.pop_back();
    walk(model.block(i), prefix, fn);
  }
}

void for_each_adapter_tensor(Decoder& model,
                             const std::function<void(const std::string&, at::Tensor&)>& fn) {
  for_each_linear(model, [&](const std::string& module, Linear& linear) {
    if (linear.adapter == nullptr) return;
    linear.adapter->visit([&](const char* name, at::Tensor& tensor) {
      if (tensor.defined()) fn(module + "." + name, tensor);
    });
  });
}

std::vector<std::string> default_target_modules(const DecoderConfig& config) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : layer_tensor_specs(config)) {
    if (spec.shape.size() != 2) continue;
    const std::string module = spec.name.substr(0, spec.name.rfind('.'));
    names.push_back(module.substr(module.rfind('.') + 1));
  }
  return names;
}

std::vector<std::string> adapter_targets(Decoder& model, const PeftConfig& config) {
  std::vector<std::string> names, all;
  for_each_linear(model, [&](const std::string& module, Linear&) {
    all.push_back(module);
    if (config.targets_module(module)) names.push_back(module);
  });
  if (names.empty()) {
    throw Error(ErrorKind::kUsage, "target_modules",
                format("none of the model's {} linear layers matches", all.size()))
        .hint(all.empty() ? std::string("the model has no layers")
                          : format("layers are named like {}", all.front()));
  }
  return names;
}

std::int64_t attach_adapters(Decoder& model, const PeftConfig& config, std::uint64_t seed,
                             std::shared_ptr<const DropoutState> masks) {
  const std::vector<std::string> targets = adapter_targets(model, config);
  const std::set<std::string> wanted(targets.begin(), targets.end());
  for_each_linear(model, [&](const std::string& module, Linear& linear) {
    if (!wanted.contains(module)) return;
    LowRankOptions options;
    options.rank = config.rank_of(module);
    options.alpha = config.alpha_of(module);
    options.dropout = config.dropout;
    options.rslora = config.rslora;
    options.dora = config.dora;
    init_low_rank(linear, options, seed, module);
    linear.adapter->masks = masks;
  });
  return static_cast<std::int64_t>(targets.size());
}

std::shared_ptr<LowRank> load_low_rank(const PeftModule& module, at::Device device) {
  auto adapter = std::make_shared<LowRank>();
  adapter->a = float_copy(module.a, device);
  adapter->b = float_copy(module.b, device);
  if (module.magnitude) adapter->magnitude = float_copy(*module.magnitude, device);
  adapter->scale = module.scale;
  adapter->alpha = module.alpha;
  adapter->stream = stream_seed(0, "dropout." + module.name);
  return adapter;
}

void load_adapters(Decoder& model, const PeftFolder& folder,
                   std::shared_ptr<const DropoutState> masks) {
  const c10::NoGradGuard no_grad;
  ProblemList problems(ErrorKind::kInput, folder.path().string());
  std::map<std::string, Linear*> linears;
  for_each_linear(model, [&](const std::string& name, Linear& linear) { linears[name] = &linear; });
  for (const PeftModule& module : folder.modules()) {
    const auto at = linears.find(module.name);
    if (at == linears.end()) {
      problems.add(format("{}: the model has no linear layer {}", module.a.name, module.name));
      continue;
    }
    const Linear& linear = *at->second;
    if (module.in_features() != linear.in_features() ||
        module.out_features() != linear.out_features()) {
      problems.add(format("{} fits a layer of [{}, {}], {} is [{}, {}]", module.a.name,
                          module.out_features(), module.in_features(), module.name,
                          linear.out_features(), linear.in_features()));
    }
    if (linear.adapter != nullptr) problems.add(format("{} has an adapter already", module.name));
  }
  std::map<std::string, at::Tensor*> tensors;
  model.for_each_parameter(
      [&](const std::string& name, at::Tensor& tensor) { tensors[name] = &tensor; });
  for (const auto& [name, stored] : folder.saved()) {
    const auto at = tensors.find(name);
    if (at == tensors.end() && name != kHead) {
      problems.add(format("{}: the model has no tensor {}", stored.name, name));
      continue;
    }
    const at::Tensor& target = name == kHead ? model.head_weight() : *at->second;
    if (target.sizes() != at::IntArrayRef(stored.shape))
      problems.add(format("{} is {}, {} is {}", stored.name, shape_text(stored.shape), name,
                          shape_text(target.sizes())));
  }
  problems.throw_if_any(depth_hint(folder, model.num_layers()));

  for (const PeftModule& module : folder.modules()) {
    Linear& linear = *linears[module.name];
    linear.adapter = load_low_rank(module, model.device());
    linear.adapter->dropout = folder.config().dropout;
    linear.adapter->masks = masks;
    if (linear.adapter->is_dora()) linear.adapter->weight_norm_squared = row_norms_squared(linear);
  }
  for (const auto& [name, stored] : folder.saved()) {
    const at::Tensor value = float_copy(stored, model.device()).to(model.type());
    if (name == kHead)
      model.set_head(value);
    else
      *tensors[name] = value;
  }
}

void remove_adapters(Decoder& model) {
  for_each_linear(model, [](const std::string&, Linear& linear) { linear.adapter = nullptr; });
}

std::map<std::string, at::Tensor> adapter_tensors(Decoder& model, const PeftConfig& config) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> out;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    out[name] = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  };
  for_each_adapter_tensor(model,
                          [&](const std::string& name, at::Tensor& tensor) { add(name, tensor); });
  bool head = false;
  const auto is_saved = [&](const std::string& name) {
    const std::string module = name.substr(0, name.rfind('.'));
    return ModulePattern{config.modules_to_save, ""}.matches(module);
  };
  model.for_each_parameter([&](const std::string& name, at::Tensor& tensor) {
    if (!is_saved(name)) return;
    head = head || name == kHead;
    add(name, tensor);
  });
  // A tied head that is to be saved is the embedding's matrix.
  if (!head && is_saved(std::string(kHead))) add(std::string(kHead), model.head_weight());
  return out;
}

Nf4Summary quantize_nf4(Decoder& model, const Nf4Options& options, Reporter& reporter,
                        const DecoderCheckpoint* source) {
  const auto phase = reporter.phase("quantising to NF4", model.num_layers(), "layers");
  Nf4Summary summary;
  for (std::int64_t i = 0; i < model.num_layers(); ++i) {
    const Nf4Summary layer = quantize_nf4_block(model.block(i), i, options, model.device(), source);
    summary.layers += layer.layers;
    summary.bytes_before += layer.bytes_before;
    summary.bytes_after += layer.bytes_after;
    phase->update(i + 1);
  }
  return summary;
}

Nf4Summary quantize_nf4_block(DecoderBlock& block, std::int64_t layer, const Nf4Options& options,
                              at::Device device, const DecoderCheckpoint* source) {
  Nf4Summary summary;
  std::string prefix = layer_prefix(layer);
  prefix.pop_back();
  walk(block, prefix, [&](const std::string& name, Linear& linear) {
    if (linear.nf4 != nullptr) return;
    ESPALIER_ASSERT(linear.adapter == nullptr);
    summary.bytes_before += linear.weight.nbytes();
    if (source != nullptr) linear.nf4 = source->load_nf4(name + ".weight", device);
    if (linear.nf4 == nullptr)
      linear.nf4 = std::make_shared<Nf4Weight>(nf4_quantize(linear.weight, options));
    linear.weight = at::Tensor();
    summary.bytes_after += linear.nf4->nbytes();
    ++summary.layers;
  });
  return summary;
}

Decoder load_nf4_decoder(std::shared_ptr<const DecoderCheckpoint> checkpoint, at::ScalarType type,
                         at::Device device, const Nf4Options& options, Reporter& reporter,
                         Nf4Summary* summary) {
  const DecoderCheckpoint& source = *checkpoint;
  const auto phase = reporter.phase("loading layers as NF4", source.config().num_layers, "layers");
  Nf4Summary total;
  const auto quantise = [&](DecoderBlock& block, std::int64_t layer) {
    const Nf4Summary part = quantize_nf4_block(block, layer, options, device, &source);
    total.layers += part.layers;
    total.bytes_before += part.bytes_before;
    total.bytes_after += part.bytes_after;
    source.release_layer(layer);
    phase->update(layer + 1);
  };
  Decoder model =
      Decoder::load(std::move(checkpoint), type, device, Residency::kResident, quantise);
  if (summary != nullptr) *summary = total;
  return model;
}

}  // namespace espalier
