// config.json after pruning: layer count, per-layer lists, index lists, counts, and layer patterns
// that the original gives as a period. Unknown keys are left as they stand.
#include <algorithm>
#include <array>
#include <functional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_files.h"

namespace espalier {
namespace {

using Layers = std::vector<std::int64_t>;

// Lists with one entry per layer; any other length is a broken config.
constexpr std::array<std::string_view, 5> kPerLayerLists{
    "layer_types", "no_rope_layers", "layers_block_type", "mlp_layer_types", "kv_source_layers"};
// Lists of layer indices, renumbered.
constexpr std::array<std::string_view, 5> kIndexLists{"mlp_only_layers", "moe_layers",
                                                      "cross_attention_layers", "full_attn_idxs",
                                                      "attn_layer_indices"};
// "The first N layers are different": N becomes the number of kept layers among them.
constexpr std::array<std::string_view, 4> kLeadingCounts{
    "max_window_layers", "first_k_dense_replace", "num_dense_layers",
    "num_first_full_attention_layers"};
// Parts of names of lists that are not about layers, whatever their length.
constexpr std::array<std::string_view, 8> kOtherLists{"token",    "architectures", "label",
                                                      "language", "auto_map",      "keys_to_ignore",
                                                      "section",  "factor"};

template <class List>
bool is_one_of(const List& list, std::string_view key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

std::int64_t integer_or(const Json& config, const char* key, std::int64_t fallback) {
  const auto at = config.find(key);
  return at != config.end() && at->is_number_integer() ? at->get<std::int64_t>() : fallback;
}

/// New index of each old layer, -1 for removed ones.
Layers new_indices(const Layers& kept, std::int64_t num_layers) {
  Layers index(static_cast<std::size_t>(num_layers), -1);
  for (std::size_t i = 0; i < kept.size(); ++i)
    index[static_cast<std::size_t>(kept[i])] = static_cast<std::int64_t>(i);
  return index;
}

Json filtered(const Json& list, const Layers& kept) {
  Json result = Json::array();
  for (const std::int64_t layer : kept) result.push_back(list[static_cast<std::size_t>(layer)]);
  return result;
}

Json renumbered(const Json& list, const Layers& index, const std::string& key) {
  Json result = Json::array();
  for (const Json& entry : list) {
    const std::int64_t layer = entry.is_number_integer() ? entry.get<std::int64_t>() : -1;
    if (layer < 0 || layer >= static_cast<std::int64_t>(index.size())) {
      throw Error(ErrorKind::kInput, "config.json",
                  format("{} names layer {}, but the model has layers 0-{}", key, entry.dump(),
                         index.size() - 1));
    }
    if (const std::int64_t now = index[static_cast<std::size_t>(layer)]; now >= 0)
      result.push_back(now);
  }
  return result;
}

[[noreturn]] void refuse(std::string message, std::string hint) {
  throw Error(ErrorKind::kUnsupported, "config.json", message).hint(hint);
}

/// Patterns that only exist as a period and cannot be written out: the plan must keep every layer's
/// role.
void check_period(const Layers& kept, std::int64_t period, std::int64_t offset,
                  std::string_view key) {
  if (period <= 1) return;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const bool was = (kept[i] + offset) % period == 0,
               is = (static_cast<std::int64_t>(i) + offset) % period == 0;
    if (was == is) continue;
    refuse(format("{} is {}: layers differ by their place in groups of {}, and layer {} would "
                  "change its role as layer {}",
                  key, period, period, kept[i], i),
           format("remove whole groups of {} consecutive layers, such as {}", period,
                  layer_set_text([&] {
                    Layers group;
                    for (std::int64_t layer = period; layer < 2 * period; ++layer)
                      group.push_back(layer);
                    return group;
                  }())));
  }
}

void check_periods(const Json& config, const Layers& kept) {
  check_period(kept, integer_or(config, "decoder_sparse_step", 1), 1, "decoder_sparse_step");
  check_period(kept, integer_or(config, "moe_layer_freq", 1), 0, "moe_layer_freq");
  check_period(kept, integer_or(config, "attn_layer_period", 1),
               -integer_or(config, "attn_layer_offset", 0), "attn_layer_period");
  check_period(kept, integer_or(config, "expert_layer_period", 1),
               -integer_or(config, "expert_layer_offset", 0), "expert_layer_period");
  check_period(kept, integer_or(config, "global_attn_every_n_layers", 1), 0,
               "global_attn_every_n_layers");
  if (!config.contains("moe_layers") || config["moe_layers"].is_null()) {
    check_period(kept, integer_or(config, "interleave_moe_layer_step", 1), 1,
                 "interleave_moe_layer_step");
  }
  if (!config.contains("layer_types")) {
    check_period(kept, integer_or(config, "full_attention_interval", 1), 1,
                 "full_attention_interval");
  }
}

/// Layers that compute no keys and values of their own: the last `num_kv_shared_layers` read those
/// of the last layer of their type before them (gemma 3n, 4).
void check_shared_kv(const Json& config, const Layers& index, std::int64_t num_layers) {
  const std::int64_t shared =
      std::min(integer_or(config, "num_kv_shared_layers", 0), num_layers - 1);
  if (shared > 0) {
    const std::int64_t first = num_layers - shared;
    const auto types = config.find("layer_types");
    std::vector<Json> seen;
    Layers group;
    for (std::int64_t layer = num_layers - 1; layer >= 0; --layer) {
      const Json type = types != config.end() && types->is_array()
                            ? (*types)[static_cast<std::size_t>(layer)]
                            : Json();
      const bool source = layer < first && std::find(seen.begin(), seen.end(), type) == seen.end();
      if (source) seen.push_back(type);
      if (layer >= first || source) group.insert(group.begin(), layer);
    }
    for (const std::int64_t layer : group) {
      if (index[static_cast<std::size_t>(layer)] >= 0) continue;
      refuse(format("layers {}-{} use keys and values that earlier layers compute "
                    "(num_kv_shared_layers {}), and layer {} "
                    "would go; layers {} must stay together",
                    first, num_layers - 1, shared, layer, layer_set_text(group)),
             format("remove layers outside {}", layer_set_text(group)));
    }
  }
  const std::int64_t factor =
      config.value("use_cla", false) ? integer_or(config, "cla_share_factor", 1) : 1;
  for (std::int64_t begin = 0; factor > 1 && begin < num_layers; begin += factor) {
    const auto from = index.begin() + begin,
               to = index.begin() + std::min(begin + factor, num_layers);
    const auto gone = std::count(from, to, -1);
    if (gone == 0 || gone == to - from) continue;
    refuse(
        format(
            "layers {}-{} share keys and values (cla_share_factor {}) and must stay or go together",
            begin, to - index.begin() - 1, factor),
        "remove whole groups");
  }
}

/// kv_source_layers[i] is the layer whose keys and values layer i uses (itself when it computes its
/// own).
Json kept_kv_sources(const Json& list, const Layers& kept, const Layers& index) {
  Json result = Json::array();
  for (const std::int64_t layer : kept) {
    const Json& entry = list[static_cast<std::size_t>(layer)];
    const std::int64_t source = entry.is_number_integer() ? entry.get<std::int64_t>() : -1;
    if (source < 0 || source >= static_cast<std::int64_t>(index.size())) {
      throw Error(ErrorKind::kInput, "config.json",
                  format("kv_source_layers holds {} for layer {}", entry.dump(), layer));
    }
    if (index[static_cast<std::size_t>(source)] < 0) {
      refuse(
          format("layer {} uses the keys and values of layer {} (kv_source_layers), which would go",
                 layer, source),
          format("remove layer {} too, or keep layer {}", layer, source));
    }
    result.push_back(index[static_cast<std::size_t>(source)]);
  }
  return result;
}

/// Attention patterns given by a period become the explicit list of the same meaning, so that kept
/// layers keep theirs.
void write_out_patterns(Json& config, std::int64_t num_layers) {
  const std::string type = config.value("model_type", std::string());
  const bool gemma = type == "gemma2" || type == "gemma3_text";
  // An absent key means the class's default window for gemma, an explicit null none.
  const bool windowed =
      config.contains("sliding_window") ? config["sliding_window"].is_number() : gemma;
  std::int64_t period = type == "gemma2"        ? 2
                        : type == "gemma3_text" ? integer_or(config, "_sliding_window_pattern", 6)
                                                : integer_or(config, "_sliding_window_pattern", 0);
  period = integer_or(config, "sliding_window_pattern", period);
  const bool listed = config.contains("layer_types") && !config["layer_types"].is_null();
  if (!listed && windowed && period > 0) {
    Json types = Json::array();
    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
      types.push_back((layer + 1) % period != 0 ? "sliding_attention" : "full_attention");
    }
    config["layer_types"] = std::move(types);
  }
  const std::int64_t interval =
      integer_or(config, "no_rope_layer_interval", type == "smollm3" ? 4 : 0);
  if (interval > 0 && (!config.contains("no_rope_layers") || config["no_rope_layers"].is_null())) {
    Json rope = Json::array();
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      rope.push_back((layer + 1) % interval != 0 ? 1 : 0);
    config["no_rope_layers"] = std::move(rope);
  }
}

void prune_value(const std::string& key, Json& value, const Layers& kept, const Layers& index) {
  const auto num_layers = static_cast<std::int64_t>(index.size());
  if (value.is_number_integer() && is_one_of(kLeadingCounts, key)) {
    const std::int64_t limit = value.get<std::int64_t>();
    value =
        std::count_if(kept.begin(), kept.end(), [&](std::int64_t layer) { return layer < limit; });
    return;
  }
  if (!value.is_array()) return;
  if (is_one_of(kIndexLists, key)) {
    value = renumbered(value, index, key);
    return;
  }
  const auto length = static_cast<std::int64_t>(value.size());
  if (is_one_of(kPerLayerLists, key) && length != num_layers) {
    throw Error(ErrorKind::kInput, "config.json",
                format("{} has {} entries, but num_hidden_layers is {}", key, length, num_layers))
        .hint(format("mend {} before pruning; one of the two numbers is wrong", key));
  }
  const bool other =
      std::any_of(kOtherLists.begin(), kOtherLists.end(),
                  [&](std::string_view part) { return key.find(part) != std::string::npos; });
  if (length != num_layers || other) return;
  value = key == "kv_source_layers" ? kept_kv_sources(value, kept, index) : filtered(value, kept);
}

}  // namespace

std::string prune_hf_config(std::string_view config_json, const Layers& kept,
                            std::int64_t num_layers) {
  check_kept(kept, num_layers);
  Json root = parse_json(config_json, "config.json");
  if (!root.is_object()) throw Error(ErrorKind::kInput, "config.json", "is not a JSON object");
  // Models with a vision tower keep the decoder's own settings one level down.
  Json& config = !root.contains("num_hidden_layers") && root.contains("text_config") &&
                         root["text_config"].is_object()
                     ? root["text_config"]
                     : root;
  const std::int64_t found = integer_or(config, "num_hidden_layers", -1);
  if (found != num_layers) {
    throw Error(ErrorKind::kInput, "config.json",
                found < 0 ? std::string("num_hidden_layers is missing or not a number")
                          : format("num_hidden_layers is {}, but the checkpoint holds {} layers",
                                   found, num_layers));
  }
  const Layers index = new_indices(kept, num_layers);
  check_periods(config, kept);
  check_shared_kv(config, index, num_layers);
  write_out_patterns(config, num_layers);
  for (auto& [key, value] : config.items()) prune_value(key, value, kept, index);
  for (const char* key : {"num_hidden_layers", "num_layers", "n_layer", "n_layers"}) {
    if (integer_or(config, key, -1) == num_layers) config[key] = kept.size();
  }
  return dump_json(root);
}

}  // namespace espalier
