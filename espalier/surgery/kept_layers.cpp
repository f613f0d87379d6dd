// Renumbering of layers.
#include <algorithm>

#include "espalier/base/format.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/kept_layers_internal.h"

namespace espalier {

std::optional<std::string> renumbered(const std::string& name, std::string_view prefix,
                                      const std::vector<std::int64_t>& kept) {
  const std::int64_t layer = layer_of_tensor(name);
  if (layer < 0) return name;
  const auto at = std::lower_bound(kept.begin(), kept.end(), layer);
  if (at == kept.end() || *at != layer) return std::nullopt;
  return format("{}{}{}", prefix, at - kept.begin(), name.substr(name.find('.', prefix.size())));
}

std::string name_in_source(const std::string& name, const std::vector<std::int64_t>& kept) {
  const std::int64_t layer = layer_of_tensor(name);
  if (layer < 0) return name;
  return layer_prefix(kept[static_cast<std::size_t>(layer)]) +
         name.substr(layer_prefix(layer).size());
}

DecoderConfig config_of_kept(DecoderConfig config, const std::vector<std::int64_t>& kept) {
  DecoderConfig result = config;
  result.num_layers = static_cast<std::int64_t>(kept.size());
  result.window.clear();
  result.use_rope.clear();
  for (const std::int64_t layer : kept) {
    result.window.push_back(config.window[static_cast<std::size_t>(layer)]);
    result.use_rope.push_back(config.use_rope[static_cast<std::size_t>(layer)]);
  }
  return result;
}

}  // namespace espalier
