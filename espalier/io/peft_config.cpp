// adapter_config.json, read and written.
#include <cmath>
#include <limits>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/peft_folder.h"

namespace espalier {
namespace {

constexpr std::int64_t kMaxRank = 1 << 16;

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) {
    text.resize(57);
    text += "...";
  }
  return text;
}

/// Null, false, empty: the feature is off.
bool is_off(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         ((value.is_array() || value.is_object()) && value.empty()) ||
         (value.is_string() && value.get<std::string>().empty());
}

[[noreturn]] void refuse(std::string_view source, std::string_view key, const Json& value,
                         std::string_view why) {
  throw Error(ErrorKind::kUnsupported, source, format("{} is {}: {}", key, shown(value), why))
      .hint("merge the adapter with the program that made it, or train it without this feature");
}

/// Features that change what the tensors mean. Everything is named, nothing dropped in silence.
void refuse_features(const Json& config, std::string_view source) {
  const auto it = config.find("peft_type");
  if (it == config.end() || !it->is_string() || it->get<std::string>() != "LORA") {
    throw Error(ErrorKind::kUnsupported, source,
                format("peft_type is {}, we have LORA",
                       it == config.end() ? std::string("missing") : shown(*it)))
        .hint("only LoRA adapters (with rsLoRA or DoRA) can be read");
  }
  if (const auto bias = config.find("bias");
      bias != config.end() && !(bias->is_string() && bias->get<std::string>() == "none"))
    refuse(source, "bias", *bias, "trained biases are not supported, we have \"none\"");
  // A string here is a recipe that changes the base weights when PEFT loads the adapter.
  if (const auto init = config.find("init_lora_weights");
      init != config.end() && init->is_string()) {
    static const std::set<std::string> kHarmless{"gaussian", "eva", "orthogonal", "true", "false"};
    if (!kHarmless.contains(init->get<std::string>()))
      refuse(source, "init_lora_weights", *init, "it changes the base weights as well");
  }
  // Switches whose off state is not null, and configurations of initialisation and run time only.
  static const std::set<std::string> kKnown{"use_rslora",     "use_dora",       "eva_config",
                                            "corda_config",   "lora_ga_config", "loftq_config",
                                            "runtime_config", "megatron_config"};
  static const std::set<std::string> kOthers{"fan_in_fan_out",         "lora_bias",
                                             "layer_replication",      "target_parameters",
                                             "ensure_weight_tying",    "trainable_token_indices",
                                             "alora_invocation_tokens"};
  for (const auto& [key, value] : config.items()) {
    const bool switches = key.starts_with("use_") || key.ends_with("_config");
    if ((!switches || kKnown.contains(key)) && !kOthers.contains(key)) continue;
    if (!is_off(value)) refuse(source, key, value, "this feature is not supported");
  }
}

class Fields {
 public:
  Fields(const Json& config, ProblemList& problems) : config_(config), problems_(problems) {}

  const Json* find(std::string_view key) const {
    const auto it = config_.find(key);
    return it == config_.end() || it->is_null() ? nullptr : &*it;
  }

  void integer(std::string_view key, std::int64_t& out) {
    if (const Json* value = find(key)) to_rank(key, *value, out);
  }

  void number(std::string_view key, double& out, double minimum, double maximum) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (value->is_number() && value->get<double>() >= minimum && value->get<double>() <= maximum)
      out = value->get<double>();
    else
      wrong(key, *value, format("a number in {}..{}", minimum, maximum));
  }

  void flag(std::string_view key, bool& out) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (value->is_boolean())
      out = value->get<bool>();
    else
      wrong(key, *value, "true or false");
  }

  /// A list of strings, or one string, which is a regular expression.
  void modules(std::string_view key, ModulePattern& out) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (value->is_string())
      out.regex = value->get<std::string>();
    else
      strings(key, out.names);
  }

  void strings(std::string_view key, std::vector<std::string>& out) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (value->is_string()) {
      out.push_back(value->get<std::string>());
      return;
    }
    if (!value->is_array()) return wrong(key, *value, "a list of strings");
    for (const Json& item : *value) {
      if (item.is_string())
        out.push_back(item.get<std::string>());
      else
        wrong(key, item, "strings");
    }
  }

  void layers(std::string_view key, std::vector<std::int64_t>& out) {
    const Json* value = find(key);
    if (value == nullptr) return;
    const auto take = [&](const Json& item) {
      if (item.is_number_integer() && item.get<std::int64_t>() >= 0)
        out.push_back(item.get<std::int64_t>());
      else
        wrong(key, item, "layer numbers");
    };
    if (!value->is_array()) return take(*value);
    for (const Json& item : *value) take(item);
  }

  template <class Take>
  void object(std::string_view key, Take&& take) {
    const Json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_object()) return wrong(key, *value, "an object");
    for (const auto& [name, item] : value->items()) take(name, item);
  }

  void to_rank(std::string_view key, const Json& value, std::int64_t& out) {
    if (value.is_number_integer() && value.get<std::int64_t>() >= 1 &&
        value.get<std::int64_t>() <= kMaxRank)
      out = value.get<std::int64_t>();
    else
      wrong(key, value, format("an integer in 1-{}", kMaxRank));
  }

  void wrong(std::string_view key, const Json& found, std::string_view expected) {
    problems_.add(format("{} is {}, expected {}", key, shown(found), expected));
  }

 private:
  const Json& config_;
  ProblemList& problems_;
};

Json number(double value) {
  if (value == std::trunc(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

Json pattern_json(const ModulePattern& pattern) {
  if (!pattern.regex.empty()) return pattern.regex;
  return pattern.names.empty() ? Json(nullptr) : Json(pattern.names);
}

template <class List>
Json list_or_null(const List& list) {
  return list.empty() ? Json(nullptr) : Json(list);
}

}  // namespace

std::vector<std::string> default_target_modules() {
  return {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
}

double PeftConfig::scale_of(std::string_view module) const {
  const auto divisor = static_cast<double>(rank_of(module));
  return alpha_of(module) / (rslora ? std::sqrt(divisor) : divisor);
}

PeftConfig parse_peft_config(std::string_view json, std::string_view source) {
  const Json config = parse_json(json, source);
  if (!config.is_object()) throw Error(ErrorKind::kInput, source, "is not a JSON object");
  refuse_features(config, source);
  ProblemList problems(ErrorKind::kInput, std::string(source));
  Fields fields(config, problems);
  PeftConfig out;
  if (const Json* name = fields.find("base_model_name_or_path"); name && name->is_string())
    out.base_model = name->get<std::string>();
  fields.integer("r", out.rank);
  fields.number("lora_alpha", out.alpha, -1e9, 1e9);
  fields.number("lora_dropout", out.dropout, 0, 1);
  fields.flag("use_rslora", out.rslora);
  fields.flag("use_dora", out.dora);
  fields.modules("target_modules", out.targets);
  fields.modules("exclude_modules", out.excluded);
  std::string lowered = out.targets.regex;
  for (char& c : lowered) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  if (lowered == "all-linear") {
    out.all_linear = true;
    out.targets.regex.clear();
  }
  fields.strings("modules_to_save", out.modules_to_save);
  fields.layers("layers_to_transform", out.layers);
  fields.strings("layers_pattern", out.layers_pattern);
  fields.object("rank_pattern", [&](const std::string& name, const Json& value) {
    std::int64_t rank = 0;
    fields.to_rank(format("rank_pattern.{}", name), value, rank);
    out.rank_pattern.emplace_back(name, rank);
  });
  fields.object("alpha_pattern", [&](const std::string& name, const Json& value) {
    if (!value.is_number())
      return fields.wrong(format("alpha_pattern.{}", name), value, "a number");
    out.alpha_pattern.emplace_back(name, value.get<double>());
  });
  problems.throw_if_any();
  return out;
}

std::string peft_config_text(const PeftConfig& config) {
  Json json;
  json["alpha_pattern"] = Json::object();
  for (const auto& [pattern, alpha] : config.alpha_pattern)
    json["alpha_pattern"][pattern] = number(alpha);
  json["base_model_name_or_path"] =
      config.base_model.empty() ? Json(nullptr) : Json(config.base_model);
  json["bias"] = "none";
  json["exclude_modules"] = pattern_json(config.excluded);
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layers_pattern"] = list_or_null(config.layers_pattern);
  json["layers_to_transform"] = list_or_null(config.layers);
  json["lora_alpha"] = number(config.alpha);
  json["lora_dropout"] = config.dropout;
  json["modules_to_save"] = list_or_null(config.modules_to_save);
  json["peft_type"] = "LORA";
  json["r"] = config.rank;
  json["rank_pattern"] = Json::object();
  for (const auto& [pattern, rank] : config.rank_pattern) json["rank_pattern"][pattern] = rank;
  json["revision"] = nullptr;
  json["target_modules"] = config.all_linear ? Json("all-linear") : pattern_json(config.targets);
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = config.dora;
  json["use_rslora"] = config.rslora;
  return dump_json(json);
}

}  // namespace espalier
