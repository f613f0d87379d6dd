// Layer plans as other programs write them: mergekit's `passthrough` merges, and our own
// espalier_pruning.json. YAML is parsed by the caller (apps/cli/merge_file.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::layer_pruning {

/// One source of one slice: layers [first, last) of `model`. `place`: "file:line:column".
struct MergeSource {
  std::string model;
  std::int64_t first = 0, last = 0;
  std::string place;
};

struct MergeFile {
  std::string merge_method;
  std::vector<std::vector<MergeSource>> slices;
  /// What the file asks for besides layers, as "dtype: bfloat16"; pruning copies bytes and ignores
  /// it.
  std::vector<std::string> ignored;
};

/// The layers that the merge keeps, ascending. Error(kUnsupported) by name for what is no removal:
/// another merge_method, several models, several sources in a slice, repeated or reordered layers;
/// Error(kInput) for ranges outside the model; all problems at once. `source`: the file's name.
std::vector<std::int64_t> kept_layers(const MergeFile& merge, std::int64_t num_layers,
                                      std::string_view source);

/// A merge file that gives the same model: one slice per run of kept layers, `dtype` as config.json
/// spells it.
std::string mergekit_yaml(const std::vector<std::int64_t>& kept, std::string_view model,
                          std::string_view dtype);

/// `kept` of an espalier_pruning.json. Error(kInput) when it is none or was made for another depth.
std::vector<std::int64_t> kept_of_record(const std::filesystem::path& file,
                                         std::int64_t num_layers);

}  // namespace espalier::layer_pruning
