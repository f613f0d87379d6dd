// Adapters on disk as the PEFT package reads and writes them: adapter_config.json and
// adapter_model.safetensors. Low-rank adapters of linear layers only (LoRA, rsLoRA, DoRA) and fully
// trained modules beside them; everything else is refused by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/io/safetensors.h"

namespace espalier {

/// A set of modules: names (a module matches when its name is one of them or ends in ".name"), or
/// one regular expression in Python's spelling that must match the whole name.
struct ModulePattern {
  std::vector<std::string> names;
  std::string regex;  // wins over `names` when not empty

  bool empty() const { return names.empty() && regex.empty(); }
  /// Throws Error(kInput) for a regular expression that does not compile or runs too long.
  bool matches(std::string_view module) const;
};

struct PeftConfig {
  std::string base_model;  // base_model_name_or_path; may be empty
  std::int64_t rank = 8;
  double alpha = 8, dropout = 0;
  bool rslora = false, dora = false;
  /// Which linear layers: `all_linear` takes every one but the head.
  bool all_linear = false;
  ModulePattern targets, excluded;
  std::vector<std::string> modules_to_save;
  /// Exceptions from rank and alpha: Python regular expressions that match the end of a module's
  /// name at a dot; the first that matches counts.
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  /// Only these layers (with name lists only); empty: all. `layers_pattern`: names of the list of
  /// layers, "layers" for decoders; empty: whatever precedes the first number.
  std::vector<std::int64_t> layers;
  std::vector<std::string> layers_pattern;

  std::int64_t rank_of(std::string_view module) const;
  double alpha_of(std::string_view module) const;
  /// alpha / rank, or alpha / sqrt(rank) with rsLoRA.
  double scale_of(std::string_view module) const;
  /// Whether the linear layer "model.layers.3.self_attn.q_proj" gets an adapter. `is_head`: the
  /// output head, which all_linear leaves out.
  bool targets_module(std::string_view module, bool is_head = false) const;
};

/// The leaf names of a llama-like block: q_proj ... down_proj, as `finetune --mode lora` uses them.
std::vector<std::string> default_target_modules();

/// Reads adapter_config.json. Unknown keys are ignored unless they switch something on (use_*,
/// *_config). Throws Error(kUnsupported) naming the feature (peft_type other than LORA, bias,
/// initialisations that change the base weights, embeddings, ...), Error(kInput) with all other
/// problems.
PeftConfig parse_peft_config(std::string_view json, std::string_view source);
/// Every field that PEFT writes for such an adapter.
std::string peft_config_text(const PeftConfig& config);

/// One adapted linear layer of a file.
struct PeftModule {
  std::string name;                       // "model.layers.3.self_attn.q_proj"
  StoredTensor a, b;                      // [rank, in], [out, rank]; names as the file spells them
  std::optional<StoredTensor> magnitude;  // [out], DoRA
  std::int64_t rank = 0;
  double alpha = 0, scale = 0;
  std::int64_t in_features() const { return a.shape[1]; }
  std::int64_t out_features() const { return b.shape[0]; }
};

class PeftFolder {
 public:
  /// Opens and checks: both files there, every tensor understood, halves complete, ranks as the
  /// config says, DoRA magnitudes exactly when use_dora. Older and foreign spellings are taken
  /// (prefixes base_model.model. missing or doubled, ".default" and other adapter names,
  /// modules_to_save in the name). Throws Error(kInput) with all problems, Error(kUnsupported) as
  /// parse_peft_config and for adapters that exist only as pickles.
  static PeftFolder open(const std::filesystem::path& folder);
  /// True when the folder holds an adapter_config.json.
  static bool is_one(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  const PeftConfig& config() const { return config_; }
  /// In the order of layers, then names.
  const std::vector<PeftModule>& modules() const { return modules_; }
  /// Fully trained tensors under their final names: ("lm_head.weight", tensor).
  const std::vector<std::pair<std::string, StoredTensor>>& saved() const { return saved_; }
  /// 1 + the highest layer named; 0 when none is.
  std::int64_t layers() const;
  std::int64_t tensor_count() const;

 private:
  std::filesystem::path path_;
  PeftConfig config_;
  std::vector<PeftModule> modules_;
  std::vector<std::pair<std::string, StoredTensor>> saved_;
};

/// Writes both files into the existing `folder`. `tensors` under final names without PEFT's prefix:
/// "model.layers.0.self_attn.q_proj.lora_A.weight", "lm_head.weight"; contiguous CPU tensors, dtype
/// kept.
void write_peft_folder(const std::filesystem::path& folder, const PeftConfig& config,
                       const std::map<std::string, at::Tensor>& tensors);

/// `text` read as re.match(rf"(.*\.)?({pattern})$", text) in Python. Errors as ModulePattern.
bool matches_module_suffix(std::string_view pattern, std::string_view text);

}  // namespace espalier
