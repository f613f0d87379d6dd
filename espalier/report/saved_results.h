// Results that other verbs saved with --save-json, as sections of a report: scores of several
// models side by side, and what each of them wrote.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/report/html_report.h"

namespace espalier {

struct SavedScore {
  std::string task, metric;  // "ppl", "perplexity"
  double value = 0;
  double standard_error = 0;  // NaN when the document has none
  std::int64_t count = 0;     // 0 when the document has none
};

/// One JSON document of `espalier eval` or `espalier generate`; documents of other verbs carry no
/// section of their own and leave `scores` and `text` empty.
struct SavedResult {
  std::filesystem::path file;
  std::string verb;   // from "schema": "espalier.eval/1" is "eval"
  std::string model;  // as the document has it
  std::string name;   // the model's last path component
  std::vector<SavedScore> scores;
  std::string settings;      // "seq_len 128, float32, no BOS"
  std::string prompt, text;  // generate
};

/// Reads one document. Throws Error(kInput) when it is no JSON or has no "schema" of espalier.
SavedResult load_saved_result(const std::filesystem::path& file);

/// Adds a heading with figures, a chart of each task's first metric when two or more models have
/// it, a table of all scores, and the texts that the models wrote. Nothing when `results` hold
/// neither scores nor texts.
void add_saved_results(const std::vector<SavedResult>& results, HtmlReport& report);

}  // namespace espalier
