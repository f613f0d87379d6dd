// See remap_adapter.h.
#include "espalier/surgery/remap_adapter.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/kept_layers_internal.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier {

std::optional<std::string> remapped_name(std::string_view name,
                                         const std::vector<std::int64_t>& kept) {
  // renumbered() speaks of tensors; a module is a tensor's name without its ending.
  return renumbered(std::string(name), kHfLayers, kept);
}

std::optional<PruningRecord> read_pruning_record(const std::filesystem::path& model) {
  const std::filesystem::path path = model / "espalier_pruning.json";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return std::nullopt;
  const Json json = read_json_file(path, 64u << 20);
  const auto fail = [&](const char* what) {
    throw Error(ErrorKind::kInput, path.string(), what)
        .hint("name the layers with --kept, or merge with --remap-pruned off");
  };
  PruningRecord record;
  const auto layers = json.is_object() ? json.find("layers_before") : json.end();
  const auto kept = json.is_object() ? json.find("kept") : json.end();
  if (!json.is_object() || layers == json.end() || !layers->is_number_integer() ||
      kept == json.end() || !kept->is_array())
    fail("has no layers_before and kept");
  record.layers_before = layers->get<std::int64_t>();
  for (const Json& layer : *kept) {
    if (!layer.is_number_integer()) fail("kept is no list of layers");
    record.kept.push_back(layer.get<std::int64_t>());
  }
  try {
    check_kept(record.kept, record.layers_before);
  } catch (const Error& error) {
    fail("kept is no ascending list of layers");
  }
  return record;
}

}  // namespace espalier
