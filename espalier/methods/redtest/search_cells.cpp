// See search_cells.h.
#include "espalier/methods/redtest/search_cells.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/methods/redtest/cell_space.h"

namespace espalier::redtest {
namespace {

constexpr double kRounding =
    1e-9;  // of differences of accuracies, which are shares of whole counts

std::string digest_of(const std::string& settings) { return sha256_hex(settings); }

bool dominates(const CellResult& a, const CellResult& b) {
  const bool no_worse = a.accuracy >= b.accuracy && a.msrs_normalised <= b.msrs_normalised &&
                        a.parameters <= b.parameters;
  return no_worse && (a.accuracy > b.accuracy || a.msrs_normalised < b.msrs_normalised ||
                      a.parameters < b.parameters);
}

}  // namespace

double cell_fitness(const CellResult& result, double lambda) {
  if (!result.failed.empty()) return -std::numeric_limits<double>::infinity();
  return result.accuracy - lambda * result.msrs_normalised;
}

std::string cell_to_json(const NatsCell& cell, const CellResult& result,
                         const std::string& settings) {
  Json json;
  json["schema"] = "espalier.search_cell/1";
  json["arch"] = nats_cell_text(cell);
  json["id"] = cell_id(cell);
  json["settings"] = digest_of(settings);
  const bool known = result.failed.empty();
  const auto measured = [&](double value) { return known ? Json(value) : Json(nullptr); };
  json["accuracy"] = measured(result.accuracy);
  json["accuracy_stderr"] = measured(result.accuracy_stderr);
  json["loss"] = measured(result.loss);
  json["images"] = result.images;
  json["msrs"] = measured(result.msrs);
  json["msrs_normalised"] = measured(result.msrs_normalised);
  json["degenerate"] = result.degenerate;
  json["test_accuracy"] = result.test_accuracy ? Json(*result.test_accuracy) : Json(nullptr);
  json["parameters"] = result.parameters;
  json["seconds"] = result.seconds;
  json["failed"] = known ? Json(nullptr) : Json(result.failed);
  return dump_json(json);
}

std::optional<CellResult> cell_from_json(const std::filesystem::path& file, const NatsCell& cell,
                                         const std::string& settings) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(file, code)) return std::nullopt;
  const Json json = read_json_file(file, 1 << 20);
  const auto is = [&](const char* name, const std::string& value) {
    const auto found = json.find(name);
    return found != json.end() && found->is_string() && found->get<std::string>() == value;
  };
  if (!json.is_object() || !is("arch", nats_cell_text(cell)) ||
      !is("settings", digest_of(settings)))
    return std::nullopt;
  const auto read = [&](const char* name, auto& value) {
    const auto found = json.find(name);
    if (found != json.end() && found->is_number()) found->get_to(value);
  };
  CellResult result;
  read("accuracy", result.accuracy);
  read("accuracy_stderr", result.accuracy_stderr);
  read("loss", result.loss);
  read("images", result.images);
  read("msrs", result.msrs);
  read("msrs_normalised", result.msrs_normalised);
  read("degenerate", result.degenerate);
  read("parameters", result.parameters);
  read("seconds", result.seconds);
  if (double test = -1; read("test_accuracy", test), test >= 0) result.test_accuracy = test;
  const auto failed = json.find("failed");
  if (failed != json.end() && failed->is_string()) result.failed = failed->get<std::string>();
  return result;
}

SearchChoice choose_cells(const std::vector<SearchedCell>& cells, double delta) {
  const auto result = [&](std::int64_t i) -> const CellResult& {
    return cells[static_cast<std::size_t>(i)].result;
  };
  const auto name = [&](std::int64_t i) {
    return nats_cell_text(cells[static_cast<std::size_t>(i)].cell);
  };
  const auto more_accurate = [&](std::int64_t a, std::int64_t b) {
    return std::make_tuple(-result(a).accuracy, result(a).msrs_normalised, result(a).parameters,
                           name(a)) < std::make_tuple(-result(b).accuracy,
                                                      result(b).msrs_normalised,
                                                      result(b).parameters, name(b));
  };
  const auto less_redundant = [&](std::int64_t a, std::int64_t b) {
    return std::make_tuple(result(a).msrs_normalised, result(a).parameters, -result(a).accuracy,
                           name(a)) < std::make_tuple(result(b).msrs_normalised,
                                                      result(b).parameters, -result(b).accuracy,
                                                      name(b));
  };
  std::vector<std::int64_t> valid;
  for (std::size_t i = 0; i < cells.size(); ++i)
    if (cells[i].result.failed.empty()) valid.push_back(static_cast<std::int64_t>(i));
  SearchChoice choice;
  if (valid.empty()) return choice;
  choice.best = *std::min_element(valid.begin(), valid.end(), more_accurate);
  const double lowest = result(choice.best).accuracy - delta / 100 - kRounding;
  for (const std::int64_t i : valid)
    if (result(i).accuracy >= lowest) choice.survivors.push_back(i);
  choice.chosen =
      *std::min_element(choice.survivors.begin(), choice.survivors.end(), less_redundant);
  for (const std::int64_t i : valid) {
    if (std::none_of(valid.begin(), valid.end(),
                     [&](std::int64_t other) { return dominates(result(other), result(i)); }))
      choice.pareto.push_back(i);
  }
  std::sort(choice.pareto.begin(), choice.pareto.end(), more_accurate);
  return choice;
}

}  // namespace espalier::redtest
