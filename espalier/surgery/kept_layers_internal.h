// Names and settings of a model of which only some layers are kept. Internal to surgery.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/models/decoder/config.h"

namespace espalier {

inline constexpr std::string_view kHfLayers = "model.layers.", kGgufLayers = "blk.";
inline constexpr std::uint64_t kMaxShardBytes = 5'000'000'000;  // as transformers shards

/// The tensor's name in the output; nullopt when its layer goes. `prefix`: kHfLayers or
/// kGgufLayers.
std::optional<std::string> renumbered(const std::string& name, std::string_view prefix,
                                      const std::vector<std::int64_t>& kept);

/// The name in the source of a tensor of the output, both spelled as Hugging Face does.
std::string name_in_source(const std::string& name, const std::vector<std::int64_t>& kept);

/// The settings of the model that is left.
DecoderConfig config_of_kept(DecoderConfig config, const std::vector<std::int64_t>& kept);

}  // namespace espalier
