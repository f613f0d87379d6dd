// See search_report.h.
#include "espalier/methods/redtest/search_report.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/report/html_report.h"
#include "espalier/run/build_info.h"

namespace espalier::redtest {
namespace {

namespace fs = std::filesystem;

const SearchedCell& cell_at(const SearchOutcome& outcome, std::int64_t i) {
  return outcome.cells[static_cast<std::size_t>(i)];
}

bool contains(const std::vector<std::int64_t>& list, std::int64_t i) {
  return std::ranges::find(list, i) != list.end();
}

std::vector<std::string> columns() {
  return {"cell",          "accuracy",   "± one se",  "MSRS", "MSRS_norm",
          "test accuracy", "parameters", "trained s", "note", "arch"};
}

/// "chosen", "best", "front", "survivor" of the searches, "failed: ...".
std::string note_of(const SearchOutcome& outcome, std::int64_t i) {
  const CellResult& result = cell_at(outcome, i).result;
  if (!result.failed.empty()) return "failed: " + result.failed;
  std::string note;
  const auto add = [&](bool applies, const SearchHistory& search, std::string_view word) {
    if (!applies) return;
    if (!note.empty()) note += ", ";
    note += outcome.searches.size() > 1 ? format("{} ({})", word, search.fitness.name)
                                        : std::string(word);
  };
  for (const SearchHistory& search : outcome.searches) {
    add(search.choice.chosen == i, search, "chosen");
    add(search.choice.best == i, search, "best");
  }
  if (note.empty() && contains(outcome.searches.front().choice.pareto, i)) note = "front";
  return note;
}

std::vector<std::string> row_of(const SearchOutcome& outcome, std::int64_t i) {
  const auto& [cell, result] = cell_at(outcome, i);
  const bool known = result.failed.empty();
  const auto number = [&](double value) {
    return known ? format("{:.4f}", value) : std::string("-");
  };
  return {cell_id(cell),
          number(result.accuracy),
          number(result.accuracy_stderr),
          known ? format("{:.2f}", result.msrs) : "-",
          number(result.msrs_normalised),
          result.test_accuracy ? format("{:.4f}", *result.test_accuracy) : "-",
          known ? format_count(result.parameters) : "-",
          format("{:.1f}", result.seconds),
          note_of(outcome, i),
          nats_cell_text(cell)};
}

Json entry_of(const SearchedCell& searched, std::int64_t order) {
  Json entry = parse_json(cell_to_json(searched.cell, searched.result, ""), "cell");
  entry.erase("schema");
  entry.erase("settings");
  entry["order"] = order;
  return entry;
}

Json picked(const SearchOutcome& outcome, std::int64_t i) {
  if (i < 0) return nullptr;
  const auto& [cell, result] = cell_at(outcome, i);
  return {{"arch", nats_cell_text(cell)},
          {"id", cell_id(cell)},
          {"accuracy", result.accuracy},
          {"msrs_normalised", result.msrs_normalised},
          {"parameters", result.parameters},
          {"test_accuracy", result.test_accuracy ? Json(*result.test_accuracy) : Json(nullptr)}};
}

Json picked(const SearchOutcome& outcome, const std::vector<std::int64_t>& list) {
  Json json = Json::array();
  for (const std::int64_t i : list) json.push_back(picked(outcome, i));
  return json;
}

Json search_entry(const SearchOutcome& outcome, const SearchHistory& search) {
  Json json;
  json["fitness"] = search.fitness.name;
  json["lambda"] = search.fitness.lambda;
  json["evaluations"] = search.cells.size();
  json["rejected"] = search.rejected.size();
  json["rejected_ids"] = search.rejected;
  json["repeated"] = std::ranges::count_if(search.proposals, &Proposal::repeated);
  json["complete"] = search.complete;
  json["proposals"] = Json::array();
  for (const Proposal& proposal : search.proposals) {
    json["proposals"].push_back(
        {{"id", cell_id(proposal.cell)},
         {"parent", proposal.parent < 0 ? Json(nullptr) : Json(proposal.parent)},
         {"repeated", proposal.repeated}});
  }
  json["survivors"] = search.choice.survivors.size();
  json["best"] = picked(outcome, search.choice.best);
  json["chosen"] = picked(outcome, search.choice.chosen);
  json["pareto"] = picked(outcome, search.choice.pareto);
  return json;
}

ReportSeries points(const SearchOutcome& outcome, std::string name,
                    const std::vector<std::int64_t>& list) {
  ReportSeries series{std::move(name), {}, {}};
  for (const std::int64_t i : list) {
    const CellResult& result = cell_at(outcome, i).result;
    if (!result.failed.empty()) continue;
    series.x.push_back(result.msrs_normalised);
    series.y.push_back(result.accuracy);
    series.names.push_back(cell_id(cell_at(outcome, i).cell));
  }
  return series;
}

/// From the least redundant cell on, each one that is more accurate than all before it.
std::vector<std::int64_t> plane_front(const SearchOutcome& outcome,
                                      const std::vector<std::int64_t>& pareto) {
  std::vector<std::int64_t> sorted = pareto, front;
  std::ranges::sort(sorted, [&](std::int64_t a, std::int64_t b) {
    const CellResult &x = cell_at(outcome, a).result, &y = cell_at(outcome, b).result;
    return std::make_pair(x.msrs_normalised, -x.accuracy) <
           std::make_pair(y.msrs_normalised, -y.accuracy);
  });
  for (const std::int64_t i : sorted) {
    if (front.empty() ||
        cell_at(outcome, i).result.accuracy > cell_at(outcome, front.back()).result.accuracy)
      front.push_back(i);
  }
  return front;
}

/// Accuracy against MSRS_norm: cells by the search that proposed them, the first one's front.
ReportChart scatter_of(const SearchOutcome& outcome) {
  ReportChart chart;
  chart.kind = ReportChart::Kind::kScatter;
  chart.title = "Accuracy and redundancy of every cell";
  chart.x_label = "MSRS_norm: share of layer pairs that are alike";
  chart.y_label = "accuracy after the short training";
  std::map<std::int64_t, std::string> proposed_by;
  for (const SearchHistory& search : outcome.searches)
    for (const std::int64_t i : search.cells)
      proposed_by[i] += (proposed_by[i].empty() ? "by " : " and ") + search.fitness.name;
  std::map<std::string, std::vector<std::int64_t>> groups;
  for (const auto& [i, names] : proposed_by) groups[names].push_back(i);
  for (const auto& [names, list] : groups) chart.series.push_back(points(outcome, names, list));
  const SearchChoice& choice = outcome.searches.front().choice;
  ReportSeries front =
      points(outcome, "front of accuracy and MSRS_norm", plane_front(outcome, choice.pareto));
  front.joined = true;
  chart.series.push_back(std::move(front));
  if (choice.chosen >= 0) chart.series.push_back(points(outcome, "chosen", {choice.chosen}));
  return chart;
}

/// Where a search is: means over its newest cells.
ReportChart progress_of(const SearchOutcome& outcome) {
  ReportChart chart;
  chart.title = "Mean of the last ten cells, as the searches went on";
  chart.x_label = "cells trained";
  chart.y_label = "accuracy, MSRS_norm";
  constexpr std::size_t kWindow = 10;
  for (const SearchHistory& search : outcome.searches) {
    ReportSeries accuracy{"accuracy, " + search.fitness.name, {}, {}};
    ReportSeries redundancy{"MSRS_norm, " + search.fitness.name, {}, {}};
    std::vector<const CellResult*> known;
    for (const std::int64_t i : search.cells) {
      const CellResult& result = cell_at(outcome, i).result;
      if (!result.failed.empty()) continue;
      known.push_back(&result);
      const std::size_t first = known.size() - std::min(known.size(), kWindow);
      double sum = 0, alike = 0;
      for (std::size_t j = first; j < known.size(); ++j)
        sum += known[j]->accuracy, alike += known[j]->msrs_normalised;
      const auto count = static_cast<double>(known.size() - first);
      for (auto [series, value] : {std::pair{&accuracy, sum}, std::pair{&redundancy, alike}}) {
        series->x.push_back(static_cast<double>(known.size()));
        series->y.push_back(value / count);
      }
    }
    chart.series.push_back(std::move(accuracy));
    chart.series.push_back(std::move(redundancy));
  }
  return chart;
}

ReportTable searches_table(const SearchOutcome& outcome) {
  ReportTable table;
  table.columns = {"fitness",  "lambda",    "cells",      "without a path",
                   "repeated", "survivors", "answer",     "cell",
                   "accuracy", "MSRS_norm", "parameters", "test accuracy"};
  for (const SearchHistory& search : outcome.searches) {
    for (const auto& [name, i] : {std::pair{"chosen", search.choice.chosen},
                                  std::pair{"most accurate", search.choice.best}}) {
      if (i < 0) continue;
      const std::vector<std::string> row = row_of(outcome, i);
      table.rows.push_back(
          {search.fitness.name, format("{}", search.fitness.lambda),
           format("{}", search.cells.size()), format("{}", search.rejected.size()),
           format("{}", std::ranges::count_if(search.proposals, &Proposal::repeated)),
           format("{}", search.choice.survivors.size()), name, row[0], row[1], row[4], row[6],
           row[5]});
    }
  }
  return table;
}

std::vector<std::int64_t> by_accuracy(const SearchOutcome& outcome) {
  std::vector<std::int64_t> order(outcome.cells.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
    return cell_fitness(cell_at(outcome, a).result, 0) >
           cell_fitness(cell_at(outcome, b).result, 0);
  });
  return order;
}

void write_report(const SearchRequest& request, const SearchOutcome& outcome,
                  const fs::path& path) {
  HtmlReport report("Search of cells", "NATS-Bench topology space, 17 cells per network");
  const SearchHistory& first = outcome.searches.front();
  std::vector<std::pair<std::string, std::string>> figures{
      {"cells trained", format("{}", outcome.cells.size())},
      {"drawn without a path", format("{}", first.rejected.size())}};
  if (first.choice.chosen >= 0) {
    const CellResult& chosen = cell_at(outcome, first.choice.chosen).result;
    figures.emplace_back("accuracy, chosen", format("{:.4f}", chosen.accuracy));
    figures.emplace_back("MSRS_norm, chosen", format("{:.4f}", chosen.msrs_normalised));
    figures.emplace_back("accuracy, best",
                         format("{:.4f}", cell_at(outcome, first.choice.best).result.accuracy));
  }
  report.figures(figures);
  if (!outcome.complete) report.paragraph("Not finished: more cells are still to be trained.");
  report.heading("Accuracy and redundancy");
  report.chart(scatter_of(outcome));
  report.paragraph(
      format("Chosen: of the cells within {} percentage points of the most accurate one, the one "
             "with the smallest MSRS_norm; among equals the one with fewer parameters.",
             request.delta));
  report.heading("Answers");
  report.table(searches_table(outcome));
  report.heading("Progress");
  report.chart(progress_of(outcome));
  report.heading("All cells");
  std::vector<std::vector<std::string>> rows;
  for (const std::int64_t i : by_accuracy(outcome)) rows.push_back(row_of(outcome, i));
  report.table({"", columns(), rows});
  report.provenance({{"settings", request.settings},
                     {"seed", format("{}", request.rules.seed)},
                     {"espalier", build_info().version},
                     {"libtorch", build_info().libtorch_version}});
  report.write(path);
}

}  // namespace

std::string search_json(const SearchRequest& request, const SearchOutcome& outcome) {
  const bool evolution = request.rules.strategy == SearchStrategy::kEvolution;
  const SearchHistory& first = outcome.searches.front();
  Json json;
  json["schema"] = "espalier.search/1";
  json["space"] = "nats-tss";
  json["strategy"] = evolution ? "evolution" : "random";
  json["fitness"] = first.fitness.name;
  json["lambda"] = first.fitness.lambda;
  json["delta"] = request.delta;
  json["seed"] = request.rules.seed;
  json["population"] = evolution ? Json(request.rules.population) : Json(nullptr);
  json["sample"] = evolution ? Json(request.rules.sample) : Json(nullptr);
  json["lag"] = evolution ? Json(request.rules.lag) : Json(nullptr);
  json["evaluations"] = first.cells.size();
  json["rejected"] = first.rejected.size();
  json["complete"] = outcome.complete;
  json["computed"] = outcome.computed;
  json["cells"] = Json::array();
  for (std::size_t i = 0; i < outcome.cells.size(); ++i)
    json["cells"].push_back(entry_of(outcome.cells[i], static_cast<std::int64_t>(i)));
  json["pareto"] = picked(outcome, first.choice.pareto);
  json["chosen"] = picked(outcome, first.choice.chosen);
  json["searches"] = Json::array();
  for (const SearchHistory& search : outcome.searches)
    json["searches"].push_back(search_entry(outcome, search));
  return dump_json(json);
}

std::string search_table(const SearchOutcome& outcome) {
  const SearchChoice& choice = outcome.searches.front().choice;
  std::vector<std::vector<std::string>> rows;
  for (const std::int64_t i : by_accuracy(outcome)) {
    bool shown = contains(choice.survivors, i) || contains(choice.pareto, i);
    for (const SearchHistory& search : outcome.searches)
      shown = shown || search.choice.chosen == i || search.choice.best == i;
    if (shown) rows.push_back(row_of(outcome, i));
  }
  const ReportTable searches = searches_table(outcome);
  return text_table(columns(), rows) + "\n" + text_table(searches.columns, searches.rows);
}

void write_search_files(const SearchRequest& request, const SearchOutcome& outcome,
                        const RunFolder& run) {
  write_file_atomically(run.folder() / "search.json", search_json(request, outcome));
  write_report(request, outcome, run.run_dir() / "report.html");
}

}  // namespace espalier::redtest
