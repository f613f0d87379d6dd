// The report of finished and interrupted runs from what their folders hold: run/manifest.json,
// run/metrics.jsonl or .csv, espalier_pruning.json, scores.json. One run in depth, or several side
// by side.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "espalier/report/html_report.h"
#include "espalier/report/saved_results.h"

namespace espalier {

struct RunFile {
  std::string path, digest;
  std::int64_t bytes = 0;
};

/// What one run folder tells. Everything may be missing: a killed run has what it had.
struct RunRecord {
  std::filesystem::path folder;  // OUT, or OUT.partial of an interrupted run
  std::string name;              // short, unique among the runs of a report

  // From the manifest; empty or zero when unknown.
  std::string verb, command, version, commit, libtorch, device, cpu, state, started, finished,
      recipe;
  std::string seed;
  std::int64_t threads = 0, peak_rss_bytes = 0;
  double wall_seconds = 0;
  std::vector<RunFile> inputs, outputs;
  std::vector<std::pair<std::string, std::string>> facts;

  std::vector<ReportSeries> metrics;  // x: step

  // From espalier_pruning.json and scores.json.
  std::string method;
  std::int64_t layers = 0;  // before pruning; 0 when not known
  std::vector<int> removed;
  std::vector<ReportSeries> scores;  // one value per layer
  std::vector<std::vector<double>> cka;

  std::vector<std::string> problems;  // files that could not be read, with the reason
};

/// The run folders at or below `path` (three levels, links not followed), sorted: a run folder
/// itself, its run/ folder, OUT when only OUT.partial is there, or a folder of runs. Throws
/// Error(kInput) when there is none.
std::vector<std::filesystem::path> find_runs(const std::filesystem::path& path);

/// Reads what is there; damaged files end up in `problems`.
RunRecord load_run(const std::filesystem::path& folder);

/// Sets short names that tell the runs apart.
void name_runs(std::vector<RunRecord>& runs);

/// At least one run. Loss curves and other metrics are overlaid by name. `results` come first,
/// below `title` (empty: made from the runs).
HtmlReport run_report(const std::vector<RunRecord>& runs,
                      const std::vector<SavedResult>& results = {}, const std::string& title = {});

/// Header and rows of the overview: one row per run, with the last value of up to four metrics.
ReportTable run_table(const std::vector<RunRecord>& runs);

}  // namespace espalier
