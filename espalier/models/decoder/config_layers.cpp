// config.json keys about rotary embedding and about single layers.
#include <algorithm>
#include <cmath>

#include "espalier/models/decoder/config_layers_internal.h"

namespace espalier {
namespace {

Error unsupported(std::string_view source, std::string message) {
  return Error(ErrorKind::kUnsupported, source, message);
}

/// One block of rotary parameters ("rope_scaling", "rope_parameters.full_attention").
class RopeBlock {
 public:
  RopeBlock(const Json& block, std::string name, std::string_view source, ProblemList& problems)
      : reader_(block, problems, name + "."),
        name_(std::move(name)),
        source_(source),
        problems_(problems) {}

  void read(ConfigReader& top, DecoderConfig& out) {
    out.rope_theta = reader_.number_or("rope_theta", out.rope_theta, 1e-6, 1e15);
    if (reader_.has("mrope_section"))
      throw unsupported(source_, format("{}.mrope_section: multimodal rotary embedding", name_));
    read_partial(out);
    RopeScaling& scaling = out.rope_scaling;
    const std::string kind = type();
    if (kind == "default") return;
    if (kind == "linear") {
      scaling.kind = RopeScaling::Kind::kLinear;
      scaling.factor = required("factor", 1);
    } else if (kind == "llama3") {
      read_llama3(top, out);
    } else if (kind == "longrope" ||
               (out.family == DecoderFamily::kPhi3 && (kind == "su" || kind == "yarn"))) {
      read_longrope(top, out);
    } else {
      throw unsupported(
          source_, format("{}.rope_type is \"{}\", we have default, linear, llama3 and longrope",
                          name_, kind));
    }
  }

  /// The block of gemma3's windowed layers: a theta, nothing else.
  double plain_theta(double fallback) {
    if (const std::string kind = type(); kind != "default")
      throw unsupported(source_, format("{}.rope_type is \"{}\", we have default only for layers "
                                        "with a window",
                                        name_, kind));
    return reader_.number_or("rope_theta", fallback, 1e-6, 1e15);
  }

 private:
  std::string type() { return reader_.text_or("rope_type", reader_.text_or("type", "default")); }

  double required(const char* key, double fallback) {
    if (!reader_.has(key)) problems_.add(format("{}.{} is missing", name_, key));
    return reader_.number_or(key, fallback, 1e-6, 1e9);
  }

  void read_partial(DecoderConfig& out) {
    const double part = reader_.number_or("partial_rotary_factor", 1, 1e-6, 1);
    if (part == 1) return;
    if (out.family != DecoderFamily::kPhi3)
      throw unsupported(source_, format("{}.partial_rotary_factor is below 1", name_));
    out.rotary_dim = static_cast<std::int64_t>(static_cast<double>(out.head_dim) * part);
  }

  double original_context(ConfigReader& top, const DecoderConfig& out) {
    return top.number_or("original_max_position_embeddings",
                         reader_.number_or("original_max_position_embeddings",
                                           static_cast<double>(out.context_length), 1, 1e15),
                         1, 1e15);
  }

  void read_llama3(ConfigReader& top, DecoderConfig& out) {
    RopeScaling& scaling = out.rope_scaling;
    scaling.kind = RopeScaling::Kind::kLlama3;
    scaling.factor = required("factor", 8);
    scaling.low_freq_factor = required("low_freq_factor", 1);
    scaling.high_freq_factor = required("high_freq_factor", 4);
    scaling.original_context = original_context(top, out);
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
      problems_.add(format("{}.high_freq_factor {} is not above low_freq_factor {}", name_,
                           scaling.high_freq_factor, scaling.low_freq_factor));
    }
  }

  std::vector<double> factors(const char* key, std::int64_t count) {
    std::vector<double> out(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), 1);
    const Json* list = reader_.find(key);
    if (list == nullptr) {
      problems_.add(format("{}.{} is missing", name_, key));
      return out;
    }
    if (!list->is_array() || static_cast<std::int64_t>(list->size()) != count) {
      problems_.add(list->is_array() ? format("{}.{} has {} entries, expected {} (half of what "
                                              "turns of a head)",
                                              name_, key, list->size(), count)
                                     : format("{}.{} is not a list", name_, key));
      return out;
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      const Json& entry = (*list)[i];
      if (!entry.is_number() || !std::isfinite(entry.get<double>()) || entry.get<double>() <= 0) {
        reader_.wrong(key, entry, "positive numbers");
        break;
      }
      out[i] = entry.get<double>();
    }
    return out;
  }

  void read_longrope(ConfigReader& top, DecoderConfig& out) {
    RopeScaling& scaling = out.rope_scaling;
    scaling.kind = RopeScaling::Kind::kLongrope;
    scaling.short_factors = factors("short_factor", out.rotary_size() / 2);
    scaling.long_factors = factors("long_factor", out.rotary_size() / 2);
    // Phi3Config's default; other classes have no such key and take max_position_embeddings.
    const bool phi = out.family == DecoderFamily::kPhi3;
    scaling.original_context = phi && !top.has("original_max_position_embeddings") &&
                                       !reader_.has("original_max_position_embeddings")
                                   ? 4096
                                   : original_context(top, out);
    const double ratio = static_cast<double>(out.context_length) / scaling.original_context;
    const double factor = reader_.number_or("factor", ratio, 1e-6, 1e9);
    const double usual = factor <= 1 || scaling.original_context <= 1
                             ? 1
                             : std::sqrt(1 + std::log(factor) / std::log(scaling.original_context));
    scaling.attention_factor = reader_.number_or("attention_factor", usual, 1e-6, 1e9);
  }

  ConfigReader reader_;
  std::string name_;
  std::string_view source_;
  ProblemList& problems_;
};

/// gemma3: parameters by kind of layer (transformers 5), or the older keys for the windowless ones.
void read_gemma3_rope(ConfigReader& reader, std::string_view source, ProblemList& problems,
                      DecoderConfig& out) {
  out.local_rope_theta = reader.number_or("rope_local_base_freq", 1e4, 1e-6, 1e15);
  if (const Json* blocks = reader.find("rope_parameters"); blocks != nullptr) {
    if (!blocks->is_object()) return reader.wrong("rope_parameters", *blocks, "an object");
    for (const char* key : {"full_attention", "sliding_attention"}) {
      const auto at = blocks->find(key);
      if (at == blocks->end() || at->is_null()) continue;
      const std::string name = format("rope_parameters.{}", key);
      if (!at->is_object()) {
        reader.wrong(name, *at, "an object");
        continue;
      }
      RopeBlock block(*at, name, source, problems);
      if (key == std::string_view("full_attention"))
        block.read(reader, out);
      else
        out.local_rope_theta = block.plain_theta(out.local_rope_theta);
    }
  }
  if (const Json* scaling = reader.find("rope_scaling"); scaling != nullptr) {
    if (!scaling->is_object()) return reader.wrong("rope_scaling", *scaling, "an object");
    RopeBlock(*scaling, "rope_scaling", source, problems).read(reader, out);
  }
}

/// A per-layer list, or nothing; a list of another length is a problem.
const Json* layer_list(ConfigReader& reader, std::string_view key, std::int64_t layers,
                       ProblemList& problems) {
  const Json* list = reader.find(key);
  if (list == nullptr || layers == 0) return nullptr;
  if (!list->is_array()) {
    reader.wrong(key, *list, "a list");
    return nullptr;
  }
  if (static_cast<std::int64_t>(list->size()) != layers) {
    problems.add(
        format("{} has {} entries, but num_hidden_layers is {}", key, list->size(), layers));
    return nullptr;
  }
  return list;
}

}  // namespace

void read_rope(ConfigReader& reader, const FamilyRules& rules, std::string_view source,
               ProblemList& problems, DecoderConfig& out) {
  out.rope_theta = reader.number_or("rope_theta", rules.rope_theta, 1e-6, 1e15);
  if (out.family == DecoderFamily::kPhi3) {
    const double part = reader.number_or("partial_rotary_factor", 1, 1e-6, 1);
    if (part != 1)
      out.rotary_dim = static_cast<std::int64_t>(static_cast<double>(out.head_dim) * part);
  }
  if (out.family == DecoderFamily::kGemma3) {
    read_gemma3_rope(reader, source, problems, out);
  } else {
    // transformers lets the older key win when a file has both.
    const char* key = reader.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
    const Json* block = reader.find(key);
    if (block != nullptr && !block->is_object()) return reader.wrong(key, *block, "an object");
    if (block != nullptr) {
      for (const auto& [name, value] : block->items()) {
        if (value.is_object())
          throw unsupported(source, format("{}.{}: rotary parameters per layer type", key, name));
      }
      RopeBlock(*block, key, source, problems).read(reader, out);
    }
  }
  if (out.rotary_size() % 2 != 0 || (out.rotary_dim == 0 && out.head_dim == 0))
    problems.add(format("{} elements of a head would turn; rotary embedding needs pairs",
                        out.rotary_size()));
}

void read_windows(ConfigReader& reader, const FamilyRules& rules, std::string_view source,
                  ProblemList& problems, DecoderConfig& out) {
  out.window.assign(static_cast<std::size_t>(out.num_layers), 0);
  // As in transformers, llama and olmo2 know no windows.
  if (rules.model_type == "llama" || rules.family == DecoderFamily::kOlmo2) return;
  const bool everywhere =
      out.family == DecoderFamily::kMistral || out.family == DecoderFamily::kPhi3;
  // An explicit null means "no window" where an absent key means the class's default of 4096.
  std::int64_t window = reader.integer_or("sliding_window", 0, 0, kMaxSize);
  if (everywhere) {
    std::fill(out.window.begin(), out.window.end(), window);
    return;
  }
  const bool gemma = out.family == DecoderFamily::kGemma2 || out.family == DecoderFamily::kGemma3;
  if (!gemma && !reader.boolean_or("use_sliding_window", false)) window = 0;
  const bool qwen = out.family == DecoderFamily::kQwen2 || out.family == DecoderFamily::kQwen3;
  // Of each `period` layers the last one sees everything.
  const std::int64_t period =
      out.family == DecoderFamily::kGemma2
          ? 2
          : reader.integer_or("sliding_window_pattern",
                              reader.integer_or("_sliding_window_pattern", 6, 1, kMaxSize), 1,
                              kMaxSize);
  const std::int64_t full_below = reader.integer_or("max_window_layers", 28, 0, kMaxSize);
  const Json* types = layer_list(reader, "layer_types", out.num_layers, problems);
  for (std::int64_t i = 0; i < out.num_layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    bool sliding = gemma ? (i + 1) % period != 0 : qwen ? i >= full_below : out.use_rope[at] == 0;
    if (types != nullptr) {
      const Json& type = (*types)[at];
      if (!type.is_string()) {
        reader.wrong("layer_types", type, "strings");
        continue;
      }
      const auto name = type.get<std::string>();
      if (name != "sliding_attention" && name != "full_attention") {
        throw unsupported(
            source,
            format("layer_types[{}] is \"{}\", we have full_attention and sliding_attention", i,
                   name));
      }
      sliding = name == "sliding_attention";
    }
    out.window[at] = sliding ? window : 0;
  }
}

void read_rope_layers(ConfigReader& reader, const FamilyRules& rules, ProblemList& problems,
                      DecoderConfig& out) {
  out.use_rope.assign(static_cast<std::size_t>(out.num_layers), 1);
  if (rules.model_type != "smollm3")
    return;  // other classes of transformers ignore the keys, and so must we
  const std::int64_t interval = reader.integer_or("no_rope_layer_interval", 4, 1, kMaxSize);
  const Json* list = layer_list(reader, "no_rope_layers", out.num_layers, problems);
  for (std::int64_t i = 0; i < out.num_layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    out.use_rope[at] = (i + 1) % interval != 0 ? 1 : 0;
    if (list == nullptr) continue;
    const Json& entry = (*list)[at];
    if (!entry.is_number_integer())
      reader.wrong("no_rope_layers", entry, "0 or 1");
    else
      out.use_rope[at] = entry.get<std::int64_t>() != 0 ? 1 : 0;
  }
}

}  // namespace espalier
