// See check_tensors.h.
#include "espalier/models/decoder/check_tensors.h"

#include <map>
#include <set>

#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

/// Buffers that older exporters saved along with the weights, and the head of tied models.
bool is_ignorable(const DecoderConfig& config, std::string_view name, std::string_view label) {
  if (label.ends_with(".rotary_emb.inv_freq") || label.ends_with(".attn_rot_embd") ||
      label == "rope_freqs.weight" || label.starts_with("rope_factors_"))
    return true;
  return config.tied_embeddings && name == "lm_head.weight";
}

/// "0-11, 13-23".
std::string ranges_text(const std::set<std::int64_t>& numbers) {
  std::string text;
  for (auto it = numbers.begin(); it != numbers.end();) {
    const std::int64_t first = *it;
    std::int64_t last = first;
    for (++it; it != numbers.end() && *it == last + 1; ++it) last = *it;
    if (!text.empty()) text += ", ";
    text += first == last ? format("{}", first) : format("{}-{}", first, last);
    if (text.size() > 200) return text + ", ...";
  }
  return text.empty() ? "none" : text;
}

bool is_whole(const std::set<std::int64_t>& layers, std::int64_t count) {
  return static_cast<std::int64_t>(layers.size()) == count &&
         (count == 0 || (*layers.begin() == 0 && *layers.rbegin() == count - 1));
}

}  // namespace

std::vector<std::string> check_decoder_tensors(
    const DecoderConfig& config, const std::vector<FoundTensor>& found,
    const std::function<std::string(const std::string&)>& label_of) {
  std::vector<std::string> problems;
  std::map<std::string, const FoundTensor*, std::less<>> by_name;
  std::set<std::int64_t> layers;
  for (const FoundTensor& tensor : found) {
    if (!tensor.name.empty()) by_name.emplace(tensor.name, &tensor);
    if (const std::int64_t layer = layer_of_tensor(tensor.label);
        layer >= 0 && !is_ignorable(config, tensor.name, tensor.label)) {
      layers.insert(layer);
    }
  }
  if (!is_whole(layers, config.num_layers)) {
    // One line instead of nine per layer: the usual cause is a config and weights of different
    // depth.
    problems.push_back(format("the config says {} layers, but the checkpoint holds layers {}",
                              config.num_layers, ranges_text(layers)));
  }
  std::set<std::string, std::less<>> wanted;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    wanted.insert(spec.name);
    const auto it = by_name.find(spec.name);
    if (it == by_name.end()) {
      const std::int64_t layer = layer_of_tensor(spec.name);
      if (layer >= 0 && !layers.contains(layer)) continue;
      const bool head = spec.name == "lm_head.weight";
      problems.push_back(format("{} is missing{}", label_of(spec.name),
                                head ? " and tie_word_embeddings is false" : ""));
    } else if (it->second->shape != spec.shape) {
      problems.push_back(format("{} has shape {}, expected {}", it->second->label,
                                shape_text(it->second->shape), shape_text(spec.shape)));
    }
  }
  for (const FoundTensor& tensor : found) {
    if (wanted.contains(tensor.name) || is_ignorable(config, tensor.name, tensor.label)) continue;
    if (const std::int64_t layer = layer_of_tensor(tensor.label); layer >= config.num_layers)
      continue;  // told above
    problems.push_back(format("{} belongs to nothing in this architecture", tensor.label));
  }
  return problems;
}

}  // namespace espalier
