// scores.json (spec 3.6): written with NaN as null, read back with every length checked.
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/methods/layer_pruning/scores.h"

namespace espalier::layer_pruning {
namespace {

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

double number_of(const Json& value, std::string_view source, std::string_view key) {
  if (value.is_null()) return std::nan("");
  if (!value.is_number())
    throw Error(ErrorKind::kInput, source,
                format("{} holds {}, expected numbers", key, value.dump()));
  return value.get<double>();
}

std::vector<double> numbers_of(const Json& list, std::int64_t layers, std::string_view source,
                               const std::string& key) {
  if (!list.is_array() || static_cast<std::int64_t>(list.size()) != layers) {
    throw Error(ErrorKind::kInput, source,
                format("{} has {} entries, but n_layers is {}", key,
                       list.is_array() ? list.size() : 0, layers));
  }
  std::vector<double> values;
  for (const Json& entry : list) values.push_back(number_of(entry, source, key));
  return values;
}

}  // namespace

std::string scores_to_json(const LayerScores& scores, const std::string& model,
                           const Calibration& calibration) {
  Json json = Json::object();
  json["schema"] = "espalier.scores/1";
  json["model"] = model;
  json["n_layers"] = scores.layers;
  json["calibration"] = {{"file", calibration.file}, {"sha256", calibration.sha256},
                         {"n", calibration.samples}, {"T", calibration.seq_len},
                         {"seed", calibration.seed}, {"add_bos", false}};
  if (scores.dense_perplexity > 0) json["dense_perplexity"] = scores.dense_perplexity;
  json["metrics"] = Json::object();
  for (const auto& [name, values] : scores.metrics) {
    Json list = Json::array();
    for (const double value : values) list.push_back(number_or_null(value));
    json["metrics"][name] = std::move(list);
  }
  if (scores.cka.defined()) {
    const at::Tensor cka = scores.cka.to(at::kCPU, at::kDouble).contiguous();
    Json matrix = Json::array();
    for (std::int64_t i = 0; i < cka.size(0); ++i) {
      Json row = Json::array();
      for (std::int64_t j = 0; j < cka.size(1); ++j) {
        row.push_back(number_or_null(cka.const_data_ptr<double>()[i * cka.size(1) + j]));
      }
      matrix.push_back(std::move(row));
    }
    json["cka"] = std::move(matrix);
  }
  return dump_json(json);
}

LayerScores scores_from_json(std::string_view text, std::string_view source) {
  const Json json = parse_json(text, source);
  const auto layers = json.is_object() ? json.find("n_layers") : json.end();
  const auto metrics = json.is_object() ? json.find("metrics") : json.end();
  if (!json.is_object() || layers == json.end() || !layers->is_number_integer() ||
      metrics == json.end() || !metrics->is_object()) {
    throw Error(ErrorKind::kInput, source, "is not a scores file: n_layers and metrics are needed")
        .hint(
            "make one with `espalier redundancy MODEL --calibration FILE --out DIR` "
            "(DIR/scores.json)");
  }
  LayerScores scores;
  scores.layers = layers->get<std::int64_t>();
  if (scores.layers < 1 || scores.layers > 100'000) {
    throw Error(ErrorKind::kInput, source, format("n_layers is {}", scores.layers));
  }
  for (const auto& [name, list] : metrics->items()) {
    scores.metrics[name] = numbers_of(list, scores.layers, source, "metrics." + name);
    for (const double value : scores.metrics[name]) {
      if (std::isnan(value) && name != "angular") {
        throw Error(ErrorKind::kInput, source,
                    format("metrics.{} has a layer without a number", name));
      }
    }
  }
  if (const auto dense = json.find("dense_perplexity"); dense != json.end()) {
    scores.dense_perplexity = number_of(*dense, source, "dense_perplexity");
  }
  if (const auto cka = json.find("cka"); cka != json.end() && cka->is_array()) {
    std::vector<double> all;
    if (static_cast<std::int64_t>(cka->size()) != scores.layers) {
      throw Error(ErrorKind::kInput, source,
                  format("cka has {} rows, but n_layers is {}", cka->size(), scores.layers));
    }
    for (const Json& row : *cka) {
      const auto values = numbers_of(row, scores.layers, source, "cka");
      all.insert(all.end(), values.begin(), values.end());
    }
    scores.cka = at::tensor(all, at::kDouble).view({scores.layers, scores.layers});
  }
  return scores;
}

}  // namespace espalier::layer_pruning
