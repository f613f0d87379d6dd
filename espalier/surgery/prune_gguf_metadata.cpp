// The architecture keys of a GGUF file that speak about layers, and what pruning makes of them
// (spec 3.4).
#include <algorithm>
#include <array>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/decoder/config.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_gguf_metadata_internal.h"

namespace espalier {
namespace {

using Layers = std::vector<std::int64_t>;

// Architecture arrays that are not per layer, whatever their length.
constexpr std::array<std::string_view, 3> kOtherArrays{
    ".rope.dimension_sections", ".classifier.output_labels", ".rope.scaling."};

GgufArray filtered(const GgufArray& array, const Layers& kept) {
  GgufArray result;
  result.element_type = array.element_type;
  result.count = kept.size();
  const std::size_t size =
      array.count == 0 ? 0 : array.raw.size() / array.count;  // bytes of one number
  for (const std::int64_t layer : kept) {
    const auto at = static_cast<std::size_t>(layer);
    if (array.element_type == GgufValueType::kString) {
      result.strings.push_back(array.strings[at]);
    } else {
      result.raw.append(array.raw, at * size, size);
    }
  }
  return result;
}

/// The same integer type with another value.
GgufValue with_number(const GgufValue& old, std::int64_t number) {
  GgufValue value = old;
  if (std::holds_alternative<std::int64_t>(old.value)) {
    value.value = number;
  } else {
    value.value = static_cast<std::uint64_t>(number);
  }
  return value;
}

/// Sliding-window period p of llama.cpp: of each p layers the last one sees everything. As an array
/// of booleans.
GgufValue window_pattern(std::uint64_t period, const Layers& kept) {
  GgufArray array;
  array.element_type = GgufValueType::kBool;
  array.count = kept.size();
  for (const std::int64_t layer : kept) {
    const bool windowed = period == 0 || static_cast<std::uint64_t>(layer) % period < period - 1;
    array.raw.push_back(windowed ? '\1' : '\0');
  }
  GgufValue value;
  value.type = GgufValueType::kArray;
  value.value = std::move(array);
  return value;
}

constexpr const char* kPeriod = ".attention.sliding_window_pattern";

std::int64_t usual_period(const std::string& arch) {
  return arch == "gemma2"   ? gguf_window_period(DecoderFamily::kGemma2)
         : arch == "gemma3" ? gguf_window_period(DecoderFamily::kGemma3)
                            : 0;
}

/// gemma2 and gemma3: readers know the windows by a period and pass over an array. The period of
/// the kept layers; nullopt for other architectures, files without windows and files with an array,
/// which is filtered like any other. Throws when no period gives every kept layer its kind.
std::optional<std::int64_t> kept_period(const GgufFile& file, const std::string& arch,
                                        const Layers& kept) {
  const std::int64_t usual = usual_period(arch);
  const bool windows =
      arch == "gemma2" || file.get_uint(arch + ".attention.sliding_window").value_or(0) > 0;
  const GgufValue* key = file.find(arch + kPeriod);
  if (usual == 0 || !windows || (key != nullptr && key->type == GgufValueType::kArray))
    return std::nullopt;
  const auto period = static_cast<std::int64_t>(
      file.get_uint(arch + kPeriod).value_or(static_cast<std::uint64_t>(usual)));
  std::vector<char> windowed;
  for (const std::int64_t layer : kept)
    windowed.push_back(period <= 0 || (layer + 1) % period != 0 ? 1 : 0);
  const auto found = find_window_period(windowed, period > 0 ? period : usual);
  if (found) return found;
  std::size_t at = 0;  // the first layer whose kind the file's period would change
  while (at + 1 < kept.size() &&
         ((kept[at] + 1) % period == 0) == ((static_cast<std::int64_t>(at) + 1) % period == 0))
    ++at;
  throw Error(
      ErrorKind::kUnsupported, file.path().string(),
      format("readers of {} files take every layer but each {}th to have a window, layer {} "
             "would change its role as layer {}, and no other period fits",
             arch, period, kept[at], at))
      .hint(format("remove whole groups of {} consecutive layers, or prune the Hugging Face "
                   "folder, whose layer_types can say it",
                   period));
}

/// gemma2 and gemma3: readers know the scale of scores by the number of layers.
void check_scale(const GgufFile& file, const std::string& arch, const Layers& kept,
                 std::int64_t num_layers) {
  if (usual_period(arch) == 0) return;
  DecoderConfig config;
  config.family = arch == "gemma2" ? DecoderFamily::kGemma2 : DecoderFamily::kGemma3;
  const auto size = [&](const char* key) {
    return std::max<std::int64_t>(1,
                                  static_cast<std::int64_t>(file.get_uint(arch + key).value_or(1)));
  };
  config.hidden_size = size(".embedding_length");
  config.num_heads = size(".attention.head_count");
  config.head_dim = static_cast<std::int64_t>(
      file.get_uint(arch + ".attention.key_length")
          .value_or(static_cast<std::uint64_t>(config.hidden_size / config.num_heads)));
  const auto scale_of = [&](std::int64_t layers) {
    config.num_layers = layers;
    return gguf_attention_scale(config);
  };
  const auto remaining = static_cast<std::int64_t>(kept.size());
  if (scale_of(num_layers) == scale_of(remaining)) return;
  throw Error(ErrorKind::kUnsupported, file.path().string(),
              format("readers know the scale of attention of {}'s largest model by its number of "
                     "layers, and pruning changes that from {} to {}",
                     arch, num_layers, remaining))
      .hint("prune the Hugging Face folder, whose config.json holds the scale");
}

void check_patterns(const GgufFile& file, const std::string& arch, const Layers& kept,
                    std::int64_t num_layers) {
  for (const char* name :
       {"interleave_moe_layer_step", "full_attention_interval", "moe_every_n_layers"}) {
    const auto period = static_cast<std::int64_t>(file.get_uint(arch + "." + name).value_or(1));
    for (std::size_t i = 0; period > 1 && i < kept.size(); ++i) {
      if ((kept[i] - static_cast<std::int64_t>(i)) % period == 0) continue;
      throw Error(ErrorKind::kUnsupported, file.path().string(),
                  format("{}.{} is {}: layers differ by their place in groups of {}, and layer {} "
                         "would become layer {}",
                         arch, name, period, period, kept[i], i))
          .hint(format("remove whole groups of {} consecutive layers", period));
    }
  }
  check_scale(file, arch, kept, num_layers);
  const auto shared =
      static_cast<std::int64_t>(file.get_uint(arch + ".attention.shared_kv_layers").value_or(0));
  if (shared > 0) {
    // The last layers read keys and values of the two layers before them (one with a window, one
    // without).
    const std::int64_t first = std::max<std::int64_t>(0, num_layers - shared - 2);
    const Layers removed = complement(kept, num_layers);
    if (!removed.empty() && removed.back() >= first) {
      throw Error(ErrorKind::kUnsupported, file.path().string(),
                  format("layers {}-{} share keys and values ({}.attention.shared_kv_layers {}) "
                         "and must stay together, but "
                         "layer {} would go",
                         first, num_layers - 1, arch, shared, removed.back()))
          .hint(format("remove layers below {}", first));
    }
  }
}

}  // namespace

GgufMetadata prune_gguf_metadata(const GgufFile& file, const Layers& kept,
                                 std::int64_t num_layers) {
  check_kept(kept, num_layers);
  const std::string arch = file.architecture(), prefix = arch + ".";
  const auto count = file.get_uint(prefix + "block_count");
  if (!count || static_cast<std::int64_t>(*count) != num_layers) {
    throw Error(ErrorKind::kInput, file.path().string(),
                count ? format("{}block_count is {}, but the file holds tensors of {} layers",
                               prefix, *count, num_layers)
                      : format("the key {}block_count is missing", prefix));
  }
  check_patterns(file, arch, kept, num_layers);
  const std::optional<std::int64_t> period = kept_period(file, arch, kept);

  GgufMetadata result;
  ProblemList problems(ErrorKind::kInput, file.path().string());
  for (const auto& [key, value] : file.metadata()) {
    if (key.starts_with("split.")) continue;
    GgufValue now = value;
    const std::string name = key.starts_with(prefix) ? key.substr(arch.size()) : std::string();
    if (name == ".block_count") {
      now = with_number(value, static_cast<std::int64_t>(kept.size()));
    } else if (name == ".leading_dense_block_count") {
      const auto limit = static_cast<std::int64_t>(file.get_uint(key).value_or(0));
      now = with_number(value, std::count_if(kept.begin(), kept.end(),
                                             [&](std::int64_t layer) { return layer < limit; }));
    } else if (const auto* array = std::get_if<GgufArray>(&value.value);
               array != nullptr && !name.empty()) {
      const bool other = std::any_of(kOtherArrays.begin(), kOtherArrays.end(),
                                     [&](std::string_view part) { return name.starts_with(part); });
      if (other) {
        // stays as it is
      } else if (array->count != static_cast<std::uint64_t>(num_layers)) {
        problems.add(format("{} has {} entries, but {}block_count is {}", key, array->count, prefix,
                            num_layers));
      } else if (array->element_type == GgufValueType::kArray) {
        problems.add(format("{} is an array of arrays, which no known model has", key));
      } else {
        now.value = filtered(*array, kept);
      }
    } else if (name == kPeriod && period) {
      now = with_number(value, *period);
    } else if (name == kPeriod) {
      now = window_pattern(file.get_uint(key).value_or(0), kept);
    }
    result.emplace_back(key, std::move(now));
  }
  if (period && *period != usual_period(arch) && file.find(arch + kPeriod) == nullptr)
    result.emplace_back(arch + kPeriod, GgufValue::u32(static_cast<std::uint32_t>(*period)));
  problems.throw_if_any(
      "the file's own arrays do not fit its layers; repair it with the tool that made it");
  return result;
}

}  // namespace espalier
