// Parts of parse_hf_decoder_config: what differs between families, and the keys that speak about
// rotary embedding and about single layers. Internal.
#pragma once

#include <cstdint>
#include <string_view>

#include "espalier/models/decoder/config.h"
#include "espalier/models/decoder/config_reader_internal.h"

namespace espalier {

// Far above any real model, and low enough that no product of sizes overflows.
inline constexpr std::int64_t kMaxLayers = 10'000;
inline constexpr std::int64_t kMaxWidth = 1ll << 22;
inline constexpr std::int64_t kMaxSize = 1ll << 27;

/// What differs between the model_type values that share our blocks.
struct FamilyRules {
  std::string_view model_type, architecture;
  DecoderFamily family;
  double rope_theta;
  std::int64_t kv_heads;  // default of num_key_value_heads, 0 = num_attention_heads
  bool tied;
  std::int64_t head_dim;  // default, 0 = hidden_size / num_attention_heads
  double eps;
  NormPlacement norms = NormPlacement::kBefore;
  QkNorm qk_norm = QkNorm::kNone;
};

/// Theta, scaling, partial rotation; needs head_dim and context_length of `out`.
/// Error(kUnsupported) for kinds of scaling that we do not compute.
void read_rope(ConfigReader& reader, const FamilyRules& rules, std::string_view source,
               ProblemList& problems, DecoderConfig& out);
/// use_rope of every layer.
void read_rope_layers(ConfigReader& reader, const FamilyRules& rules, ProblemList& problems,
                      DecoderConfig& out);
/// window of every layer, from layer_types or from the family's pattern; needs use_rope.
void read_windows(ConfigReader& reader, const FamilyRules& rules, std::string_view source,
                  ProblemList& problems, DecoderConfig& out);

}  // namespace espalier
