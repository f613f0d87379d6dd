// The hidden set: names, stages, protection, parameters of each layer.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/models/cnn/hidden_internal.h"

namespace espalier {
namespace {

std::vector<HiddenSlot> resnet_slots(const CnnConfig& config) {
  std::vector<HiddenSlot> slots{{"conv1", {"conv1.", "bn1."}}};
  for (std::size_t s = 0; s < config.stages.size(); ++s) {
    for (std::size_t b = 0; b < config.stages[s].size(); ++b) {
      const std::string name = format("layer{}.{}", s + 1, b);
      slots.push_back(
          {name, {name + "."}, static_cast<std::int64_t>(s), static_cast<std::int64_t>(b)});
    }
  }
  return slots;
}

/// Convolution, norm, ReLU take three places of `features`, a pool one.
std::vector<HiddenSlot> vgg_slots(const CnnConfig& config) {
  std::vector<HiddenSlot> slots;
  std::int64_t place = 0;
  for (std::size_t s = 0; s < config.stages.size(); ++s, ++place) {
    for (std::size_t c = 0; c < config.stages[s].size(); ++c, place += 3) {
      slots.push_back({format("features.{}", place),
                       {format("features.{}.", place), format("features.{}.", place + 1)},
                       static_cast<std::int64_t>(s),
                       static_cast<std::int64_t>(c)});
    }
  }
  return slots;
}

std::vector<HiddenSlot> nats_slots(const CnnConfig& config) {
  std::vector<HiddenSlot> slots{{"stem.0", {"stem.0.", "stem.1."}}};
  for (std::size_t c = 0; c < config.stages.at(0).size(); ++c) {
    const std::string name = format("cells.{}", c);
    slots.push_back({name, {name + "."}, 0, static_cast<std::int64_t>(c)});
  }
  return slots;
}

}  // namespace

bool HiddenSlot::owns(std::string_view tensor) const {
  for (const std::string& prefix : prefixes)
    if (tensor.starts_with(prefix)) return true;
  return false;
}

std::string HiddenSlot::renamed(const HiddenSlot& from, std::string_view tensor) const {
  ESPALIER_ASSERT(from.prefixes.size() == prefixes.size());
  for (std::size_t i = 0; i < prefixes.size(); ++i) {
    if (tensor.starts_with(from.prefixes[i]))
      return prefixes[i] + std::string(tensor.substr(from.prefixes[i].size()));
  }
  return std::string(tensor);
}

std::vector<HiddenSlot> hidden_slots(const CnnConfig& config) {
  switch (config.family) {
    case CnnFamily::kVgg:
      return vgg_slots(config);
    case CnnFamily::kNatsCell:
      return nats_slots(config);
    case CnnFamily::kCifarResnet:
    case CnnFamily::kResnet:
      break;
  }
  return resnet_slots(config);
}

std::vector<HiddenLayer> Cnn::hidden_layers() const {
  const std::vector<NamedTensor> all = parameters();
  std::vector<HiddenLayer> layers;
  for (const HiddenSlot& slot : hidden_slots(config_)) {
    HiddenLayer layer{.name = slot.name, .stage = slot.stage};
    if (slot.stage >= 0)
      layer.original = config_.stages[static_cast<std::size_t>(slot.stage)]
                                     [static_cast<std::size_t>(slot.position)];
    layer.is_protected = slot.stage < 0 || slot.position == 0;
    for (const NamedTensor& parameter : all)
      if (slot.owns(parameter.name)) layer.parameters += parameter.tensor.numel();
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::vector<NamedTensor> Cnn::hidden_parameters(std::int64_t index) const {
  const std::vector<HiddenSlot> slots = hidden_slots(config_);
  ESPALIER_ASSERT(index >= 0 && index < static_cast<std::int64_t>(slots.size()));
  std::vector<NamedTensor> found;
  for (NamedTensor& parameter : parameters()) {
    if (slots[static_cast<std::size_t>(index)].owns(parameter.name))
      found.push_back(std::move(parameter));
  }
  return found;
}

}  // namespace espalier
