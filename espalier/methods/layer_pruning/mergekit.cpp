// See mergekit.h.
#include "espalier/methods/layer_pruning/mergekit.h"

#include <algorithm>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

constexpr std::string_view kForm =
    "a removal keeps slices of one model in order: merge_method: passthrough, layer_range: [0, "
    "12], "
    "then [19, 30]";

/// What makes it something else than a removal, whatever the model's depth.
void check_is_removal(const MergeFile& merge, std::string_view source) {
  ProblemList problems(ErrorKind::kUnsupported, std::string(source));
  if (merge.merge_method != "passthrough") {
    problems.add(format("merge_method is {}, only passthrough takes layers out unchanged",
                        merge.merge_method.empty() ? "missing" : merge.merge_method));
  }
  std::set<std::string> models;
  for (const auto& slice : merge.slices) {
    if (slice.size() != 1) {
      problems.add(format("{}: a slice mixes {} sources, expected one",
                          slice.empty() ? std::string(source) : slice.front().place, slice.size()));
    }
    for (const MergeSource& part : slice) models.insert(part.model);
  }
  if (models.size() > 1) {
    std::string names;
    for (const std::string& model : models) names += (names.empty() ? "" : ", ") + model;
    problems.add(format("the slices come from {} models ({}), expected one", models.size(), names));
  }
  problems.throw_if_any(kForm);
}

}  // namespace

std::vector<std::int64_t> kept_layers(const MergeFile& merge, std::int64_t num_layers,
                                      std::string_view source) {
  check_is_removal(merge, source);
  ProblemList ranges(ErrorKind::kInput, std::string(source));
  if (merge.slices.empty()) ranges.add("holds no slices");
  for (const auto& slice : merge.slices) {
    const MergeSource& part = slice.front();
    if (part.first < 0 || part.last > num_layers || part.first >= part.last) {
      ranges.add(
          format("{}: layer_range [{}, {}] is not a range of the model's {} layers (the end "
                 "is not included, so at most [0, {}])",
                 part.place, part.first, part.last, num_layers, num_layers));
    }
  }
  ranges.throw_if_any(kForm);

  ProblemList order(ErrorKind::kUnsupported, std::string(source));
  std::set<std::int64_t> seen;
  std::vector<std::int64_t> kept;
  for (const auto& slice : merge.slices) {
    const MergeSource& part = slice.front();
    std::vector<std::int64_t> repeated;
    for (std::int64_t layer = part.first; layer < part.last; ++layer)
      if (!seen.insert(layer).second) repeated.push_back(layer);
    if (!repeated.empty()) {
      order.add(format("{}: layers {} are repeated, which makes a deeper model, not a smaller one",
                       part.place, layer_set_text(repeated)));
    } else if (!kept.empty() && part.first < kept.back()) {
      order.add(format("{}: layer {} comes after layer {}; pruning keeps the order", part.place,
                       part.first, kept.back()));
    }
    for (std::int64_t layer = part.first; layer < part.last; ++layer) kept.push_back(layer);
  }
  order.throw_if_any(kForm);
  return kept;
}

std::string mergekit_yaml(const std::vector<std::int64_t>& kept, std::string_view model,
                          std::string_view dtype) {
  // A JSON string is a YAML string: any name can be written so.
  const std::string name =
      Json(std::string(model)).dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string text = "slices:\n";
  for (std::size_t i = 0; i < kept.size();) {
    std::size_t end = i + 1;
    while (end < kept.size() && kept[end] == kept[end - 1] + 1) ++end;
    text += format("  - sources:\n      - model: {}\n        layer_range: [{}, {}]\n", name,
                   kept[i], kept[end - 1] + 1);
    i = end;
  }
  text += "merge_method: passthrough\n";
  if (!dtype.empty()) text += format("dtype: {}\n", dtype);
  return text;
}

std::vector<std::int64_t> kept_of_record(const std::filesystem::path& file,
                                         std::int64_t num_layers) {
  const Json json = read_json_file(file, 1u << 26);
  const auto kept = json.is_object() ? json.find("kept") : json.end();
  const auto before = json.is_object() ? json.find("layers_before") : json.end();
  if (!json.is_object() || kept == json.end() || !kept->is_array() || before == json.end() ||
      !before->is_number_integer()) {
    throw Error(ErrorKind::kInput, file.string(),
                "is not a pruning record: layers_before and kept are needed")
        .hint("give the espalier_pruning.json of a pruned folder, or a mergekit YAML file");
  }
  if (before->get<std::int64_t>() != num_layers) {
    throw Error(ErrorKind::kInput, file.string(),
                format("was made for a model of {} layers, but this one has {}",
                       before->get<std::int64_t>(), num_layers));
  }
  std::vector<std::int64_t> layers;
  for (const Json& entry : *kept) {
    if (!entry.is_number_integer()) {
      throw Error(ErrorKind::kInput, file.string(),
                  format("kept holds {}, expected layers", entry.dump()));
    }
    layers.push_back(entry.get<std::int64_t>());
  }
  return layers;
}

}  // namespace espalier::layer_pruning
