// Dropping hidden layers of a net: which may go, names of what is left, and stage heads that start
// anew.
#include <algorithm>
#include <map>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/models/cnn/hidden_internal.h"
#include "espalier/models/cnn/initial_weights_internal.h"

namespace espalier {
namespace {

constexpr std::string_view kHeadHint =
    "keep it, or pass --allow-stage-head-drop to let the next kept layer take its place with "
    "random "
    "weights";

void check_list(const std::vector<std::int64_t>& kept, std::int64_t count) {
  ProblemList problems(ErrorKind::kUsage, "kept layers");
  if (kept.empty()) problems.add(format("the list is empty; the net has layers 0-{}", count - 1));
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] < 0 || kept[i] >= count)
      problems.add(format("{} is out of range; the net has layers 0-{}", kept[i], count - 1));
    if (i > 0 && kept[i] <= kept[i - 1])
      problems.add(
          format("{} stands after {}; the list must ascend without repeats", kept[i], kept[i - 1]));
  }
  problems.throw_if_any();
}

/// The stages of the net that is left; every problem of the plan at once.
CnnConfig config_of_kept(const CnnConfig& config, const std::vector<HiddenLayer>& layers,
                         const std::vector<std::int64_t>& kept, bool allow_stage_head_drop) {
  ProblemList problems(ErrorKind::kUsage, "kept layers");
  CnnConfig left = config;
  for (auto& stage : left.stages) stage.clear();
  for (const std::int64_t index : kept) {
    const HiddenLayer& layer = layers[static_cast<std::size_t>(index)];
    if (layer.stage >= 0)
      left.stages[static_cast<std::size_t>(layer.stage)].push_back(layer.original);
  }
  // The first layer reads the image: in a ResNet the stem, in a VGG the first convolution.
  if (kept.front() != 0)
    problems.add(format("the stem {} (layer 0) cannot go", layers.front().name));
  for (std::size_t s = 0; s < left.stages.size(); ++s) {
    const auto& before = config.stages[s];
    if (left.stages[s].empty() && !before.empty()) {
      if (!allow_stage_head_drop || !may_be_empty(config, s))
        problems.add(
            format("stage {} would lose all of its {} layers{}", s + 1, before.size(),
                   allow_stage_head_drop ? ", but it changes the number of channels" : ""));
    } else if (!before.empty() && left.stages[s].front() != before.front() &&
               !allow_stage_head_drop) {
      const auto head = std::find_if(layers.begin(), layers.end(), [&](const HiddenLayer& layer) {
        return layer.stage == static_cast<std::int64_t>(s);
      });
      problems.add(
          format("stage {} would lose its first layer {} (layer {}), which owns its change "
                 "of channels and size",
                 s + 1, head->name, head - layers.begin()));
    }
  }
  problems.throw_if_any(kHeadHint);
  return left;
}

/// Where a tensor of the smaller net comes from, and the layer that holds it there ("" for none).
struct Origin {
  std::string tensor, layer;
};

std::map<std::string, Origin> origins(const std::vector<HiddenSlot>& from,
                                      const std::vector<HiddenSlot>& to,
                                      const std::vector<std::int64_t>& kept, Cnn left) {
  ESPALIER_ASSERT(to.size() == kept.size());
  std::map<std::string, Origin> found;
  for_each_tensor(left, "", [&](const std::string& name, at::Tensor&) {
    Origin origin{name, ""};
    for (std::size_t i = 0; i < to.size(); ++i) {
      if (!to[i].owns(name)) continue;
      const HiddenSlot& source = from[static_cast<std::size_t>(kept[i])];
      origin = {source.renamed(to[i], name), source.name};
      break;
    }
    found.emplace(name, std::move(origin));
  });
  return found;
}

}  // namespace

Cnn Cnn::with_layers(const std::vector<std::int64_t>& kept_hidden, const LayerDropOptions& options,
                     Reporter& reporter) const {
  if (config_.family == CnnFamily::kNatsCell) {
    throw Error(ErrorKind::kUnsupported, config_.arch, "layers of a cell net cannot be dropped")
        .hint("ResNets and VGGs can: their layers are residual blocks and convolutions");
  }
  const std::vector<HiddenLayer> layers = hidden_layers();
  check_list(kept_hidden, static_cast<std::int64_t>(layers.size()));
  Cnn left(config_of_kept(config_, layers, kept_hidden, options.allow_stage_head_drop));
  left.masks_ = masks_;

  std::map<std::string, at::Tensor> tensors;
  Cnn source = *this;
  for_each_tensor(source, "",
                  [&](const std::string& name, at::Tensor& tensor) { tensors[name] = tensor; });
  const auto origin = origins(hidden_slots(config_), hidden_slots(left.config_), kept_hidden, left);
  std::set<std::string> fresh;  // layers that stand where their tensors do not fit
  for_each_tensor(left, "", [&](const std::string& name, at::Tensor& tensor) {
    const auto it = tensors.find(origin.at(name).tensor);
    if (it == tensors.end() || it->second.sizes() != tensor.sizes())
      fresh.insert(origin.at(name).layer);
  });
  const at::TensorOptions like = parameters().front().tensor.options();
  for_each_tensor(left, "", [&](const std::string& name, at::Tensor& tensor) {
    if (!fresh.contains(origin.at(name).layer)) {
      tensor = tensors.at(origin.at(name).tensor);
      return;
    }
    initialise_tensor(left.config_, name, tensor, options.seed);
    tensor = tensor.to(tensor.dim() >= 2 ? like : like.dtype(tensor.scalar_type()));
  });
  for (const std::string& layer : fresh) {
    reporter.warn(
        format("{} takes the place of a dropped stage head and starts from random weights", layer));
  }
  return left;
}

}  // namespace espalier
