// Scores and orders as files; see score_files.h.
#include "espalier/methods/layer_pruning/score_files.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

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

/// The greedy order is what makes sleb's places good for fewer layers than were searched for.
void read_sleb(const Json& json, std::string_view source, LayerScores& scores) {
  const auto sleb = json.find("sleb");
  if (sleb == json.end() || !sleb->is_object()) return;
  const auto removed = sleb->find("removed");
  std::set<std::int64_t> seen;
  const bool fits = removed != sleb->end() && removed->is_array() &&
                    static_cast<std::int64_t>(removed->size()) < scores.layers;
  for (std::size_t i = 0; fits && i < removed->size(); ++i) {
    const Json& entry = (*removed)[i];
    const std::int64_t layer = entry.is_number_integer() ? entry.get<std::int64_t>() : -1;
    if (layer < 0 || layer >= scores.layers || !seen.insert(layer).second) {
      throw Error(ErrorKind::kInput, source,
                  format("sleb.removed holds {}, expected distinct layers 0-{}", entry.dump(),
                         scores.layers - 1));
    }
    scores.greedy.removed.push_back(layer);
  }
  if (!fits) {
    throw Error(ErrorKind::kInput, source,
                format("sleb.removed is no list of fewer than {} layers", scores.layers));
  }
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
  if (!scores.greedy.removed.empty()) {
    json["sleb"] = {{"removed", scores.greedy.removed},
                    {"perplexity", scores.greedy.perplexity},
                    {"block_forwards", scores.greedy.block_forwards},
                    {"plain_forwards", scores.greedy.plain_forwards}};
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
      if (std::isnan(value) && !scores_runs(name)) {
        throw Error(ErrorKind::kInput, source,
                    format("metrics.{} has a layer without a number", name));
      }
    }
  }
  if (const auto dense = json.find("dense_perplexity"); dense != json.end()) {
    scores.dense_perplexity = number_of(*dense, source, "dense_perplexity");
  }
  read_sleb(json, source, scores);
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

std::string segments_to_json(const SegmentPlan& plan) {
  const Segmentation& found = plan.segmentation;
  return dump_json({{"k", found.k},
                    {"starts", found.starts},
                    {"cost", found.cost},
                    {"costs", found.costs},
                    {"keep", plan.budgets}});
}

std::string order_to_csv(const std::vector<std::int64_t>& order) {
  std::string text;
  for (const std::int64_t layer : order) text += format("{}{}", text.empty() ? "" : ",", layer);
  return text + "\n";
}

std::vector<std::int64_t> order_from_csv(std::string_view text, std::int64_t num_layers,
                                         std::string_view source) {
  constexpr std::string_view kHint =
      "an order is one line of layers, least important first: 26,25,24,28";
  std::vector<std::int64_t> order;
  std::set<std::int64_t> seen;
  std::int64_t line = 1;
  std::size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  const auto refuse = [&](std::string message) {
    throw Error(ErrorKind::kInput, format("{}:{}", source, line), message).hint(kHint);
  };
  while (at < text.size()) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (c == ',' || c == '[' || c == ']' || std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++at;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of(", \t\r\n[]", at), text.size());
    const std::string_view word = text.substr(at, end - at);
    std::int64_t layer = -1;
    const auto [rest, code] = std::from_chars(word.data(), word.data() + word.size(), layer);
    if (code != std::errc() || rest != word.data() + word.size())
      refuse(format("`{}` is not a layer", word.substr(0, 40)));
    if (layer < 0 || layer >= num_layers)
      refuse(format("layer {} is out of range; the model has layers 0-{}", layer, num_layers - 1));
    if (!seen.insert(layer).second) refuse(format("layer {} comes twice", layer));
    order.push_back(layer);
    at = end;
  }
  if (order.empty()) refuse("holds no layers");
  return order;
}

LayerScores read_scores(const std::filesystem::path& file, std::int64_t num_layers) {
  const std::string text = read_file(file, 1u << 28);
  const std::size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first != std::string::npos && text[first] != '{') {
    LayerScores scores;
    scores.layers = num_layers;
    std::vector<double>& places = scores.metrics[kOrderMetric];
    places.assign(static_cast<std::size_t>(num_layers), std::numeric_limits<double>::infinity());
    double place = 0;
    for (const std::int64_t layer : order_from_csv(text, num_layers, file.string()))
      places[static_cast<std::size_t>(layer)] = place++;
    return scores;
  }
  LayerScores scores = scores_from_json(text, file.string());
  if (scores.layers != num_layers) {
    throw Error(
        ErrorKind::kInput, file.string(),
        format("holds scores of {} layers, but the model has {}", scores.layers, num_layers))
        .hint("score this model with `espalier redundancy`");
  }
  return scores;
}

}  // namespace espalier::layer_pruning
