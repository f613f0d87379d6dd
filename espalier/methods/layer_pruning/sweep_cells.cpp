// See sweep_cells.h.
#include "espalier/methods/layer_pruning/sweep_cells.h"

#include <charconv>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

constexpr const char* kRecoveries = "none, head, partial:K, lora, qlora, dora, full";

double number(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number() ? found->get<double>() : 0;
}

std::int64_t whole(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

}  // namespace

Recovery parse_recovery(std::string_view text) {
  Recovery recovery;
  recovery.name = std::string(text);
  if (text == "none") return recovery;
  if (text == "lora" || text == "qlora" || text == "dora" || text == "full") {
    recovery.mode = recovery.name;
    return recovery;
  }
  recovery.mode = "partial";
  if (text == "head") return recovery;
  std::int64_t last = -1;
  if (text.starts_with("partial:")) {
    const std::string_view number = text.substr(8);
    const auto [end, code] = std::from_chars(number.data(), number.data() + number.size(), last);
    if (code != std::errc() || end != number.data() + number.size()) last = -1;
  }
  if (last < 0) {
    throw Error(ErrorKind::kUsage, "--recoveries",
                format("`{}` is no recovery, there are: {}", text, kRecoveries))
        .hint("--recoveries none,head,partial:3,lora");
  }
  recovery.last = last;
  recovery.name = last == 0 ? std::string("head") : format("partial:{}", last);
  return recovery;
}

std::string SweepCell::id() const {
  if (kind == Kind::kDense) return "dense";
  std::string text = format("n{:02}_{}", remove, kind == Kind::kScratch ? "scratch" : metric);
  if (kind == Kind::kPruned) text += "_" + recovery.name;
  for (char& c : text)
    if (c == ':') c = '-';
  return recovery.trains() ? text + format("_lr{:.0e}", lr) : text;
}

std::string SweepCell::key() const {
  if (kind == Kind::kDense) return "dense";
  const std::string what =
      kind == Kind::kScratch ? format("scratch without {}", remove) : layer_set_text(removed);
  return format("{} {} lr {}", what, recovery.name, lr);
}

void read_evaluation(std::string_view document, SweepResult& result) {
  const Json json = parse_json(document, "evaluation");
  const auto results = json.find("results");
  if (results == json.end() || !results->is_object()) return;
  for (const auto& [task, values] : results->items()) {
    if (task == "ppl") {
      result.perplexity = number(values, "perplexity");
      result.perplexity_stderr = number(values, "perplexity_stderr");
      continue;
    }
    // lm-eval's files spell the filter out: "acc,none".
    const char* name = values.contains("acc") ? "acc" : "acc,none";
    const char* error = values.contains("acc") ? "acc_stderr" : "acc_stderr,none";
    if (!values.contains(name)) continue;
    result.accuracy[task] = number(values, name);
    result.accuracy_stderr[task] = number(values, error);
  }
}

void read_healing(std::string_view document, SweepResult& result) {
  const Json json = parse_json(document, "healing");
  result.trainable_parameters = whole(json, "trainable_parameters");
  result.tokens = whole(json, "tokens");
  result.loss_first = number(json, "loss_first");
  result.loss_last = number(json, "loss_last");
  result.peak_rss_bytes = whole(json, "peak_rss_bytes");
  result.peak_device_bytes = whole(json, "peak_device_bytes");
  result.heal_seconds = number(json, "training_seconds") + number(json, "prefix_seconds");
}

std::string cell_to_json(const SweepCell& cell, const SweepResult& result,
                         const std::string& settings) {
  Json json;
  json["schema"] = "espalier.sweep_cell/1";
  json["id"] = cell.id();
  json["key"] = cell.key();
  json["settings"] = sha256_hex(settings);
  json["metric"] = cell.kind == SweepCell::Kind::kDense     ? "dense"
                   : cell.kind == SweepCell::Kind::kScratch ? "scratch"
                                                            : cell.metric;
  json["remove"] = cell.remove;
  json["removed"] = cell.removed;
  json["recovery"] = cell.recovery.name;
  json["lr"] = cell.recovery.trains() ? Json(cell.lr) : Json(nullptr);
  const auto measured = [](double value) { return value > 0 ? Json(value) : Json(nullptr); };
  json["perplexity"] = measured(result.perplexity);
  json["perplexity_stderr"] = measured(result.perplexity_stderr);
  json["accuracy"] = result.accuracy;
  json["accuracy_stderr"] = result.accuracy_stderr;
  json["layers"] = result.layers;
  json["bytes"] = result.bytes;
  json["seconds"] = result.seconds;
  json["heal_seconds"] = result.heal_seconds;
  json["trainable_parameters"] = result.trainable_parameters;
  json["tokens"] = result.tokens;
  json["loss_first"] = measured(result.loss_first);
  json["loss_last"] = measured(result.loss_last);
  json["peak_rss_bytes"] = result.peak_rss_bytes;
  json["peak_device_bytes"] = result.peak_device_bytes;
  json["failed"] = result.failed.empty() ? Json(nullptr) : Json(result.failed);
  return dump_json(json);
}

std::optional<SweepResult> cell_from_json(const std::filesystem::path& file, const SweepCell& cell,
                                          const std::string& settings) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(file, code)) return std::nullopt;
  const Json json = read_json_file(file, 1 << 20);
  const auto is = [&](const char* name, const std::string& value) {
    const auto found = json.find(name);
    return found != json.end() && found->is_string() && found->get<std::string>() == value;
  };
  if (!json.is_object() || !is("key", cell.key()) || !is("settings", sha256_hex(settings)))
    return std::nullopt;
  SweepResult result;
  result.perplexity = number(json, "perplexity");
  result.perplexity_stderr = number(json, "perplexity_stderr");
  for (auto [name, values] : {std::pair{"accuracy", &result.accuracy},
                              std::pair{"accuracy_stderr", &result.accuracy_stderr}}) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_object()) continue;
    for (const auto& [task, value] : found->items())
      if (value.is_number()) (*values)[task] = value.get<double>();
  }
  result.layers = whole(json, "layers");
  result.bytes = static_cast<std::uint64_t>(whole(json, "bytes"));
  result.seconds = number(json, "seconds");
  result.heal_seconds = number(json, "heal_seconds");
  result.trainable_parameters = whole(json, "trainable_parameters");
  result.tokens = whole(json, "tokens");
  result.loss_first = number(json, "loss_first");
  result.loss_last = number(json, "loss_last");
  result.peak_rss_bytes = whole(json, "peak_rss_bytes");
  result.peak_device_bytes = whole(json, "peak_device_bytes");
  const auto failed = json.find("failed");
  if (failed != json.end() && failed->is_string()) result.failed = failed->get<std::string>();
  return result;
}

}  // namespace espalier::layer_pruning
