// See sweep.h.
#include "espalier/methods/layer_pruning/sweep.h"

#include <algorithm>
#include <map>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/io/hf_folder.h"
#include "espalier/methods/layer_pruning/scratch_model.h"
#include "espalier/methods/layer_pruning/sleb.h"
#include "espalier/methods/layer_pruning/sweep_report.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/surgery/write_model.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

std::string digits(std::int64_t count) { return format("n{:02}", count); }

/// Scores that an earlier part of the sweep left, when they are of the same text and metrics.
std::optional<LayerScores> earlier_scores(const fs::path& file, const Calibration& calibration,
                                          const std::vector<std::string>& metrics) {
  std::error_code code;
  if (!fs::is_regular_file(file, code)) return std::nullopt;
  const std::string text = read_file(file, 1u << 28);
  const Json json = parse_json(text, file.string());
  const auto found = json.find("calibration");
  if (found == json.end() || found->value("sha256", "") != calibration.sha256 ||
      found->value("n", 0) != calibration.samples || found->value("T", 0) != calibration.seq_len ||
      found->value("seed", std::uint64_t{0}) != calibration.seed)
    return std::nullopt;
  LayerScores scores = scores_from_json(text, file.string());
  for (const std::string& metric : metrics)
    if (!scores.metrics.contains(metric)) return std::nullopt;
  return scores;
}

class Sweep {
 public:
  Sweep(const SweepRequest& request, const SweepHooks& hooks, RunFolder& run, Reporter& reporter,
        const StopToken& stop, const std::function<void(const SweepOutcome&)>& on_row)
      : request_(request),
        hooks_(hooks),
        run_(run),
        reporter_(reporter),
        stop_(stop),
        on_row_(on_row),
        cells_(run.folder() / "cells"),
        work_(run.run_dir() / "work") {}

  SweepOutcome run() {
    fs::create_directories(cells_);
    outcome_.layers = DecoderCheckpoint::open(request_.model)->config().num_layers;
    const auto scores =
        sweep_scores(request_, run_.folder() / "scores", reporter_, stop_, outcome_);
    run_.keep();  // from here on there is something to resume
    for (SweepCell& cell : plan_cells(request_, scores))
      outcome_.rows.push_back({std::move(cell), std::nullopt, ""});
    for (SweepRow& row : outcome_.rows) find_result(row);
    for (std::size_t i = 0; i < outcome_.rows.size(); ++i) {
      SweepRow& row = outcome_.rows[i];
      if (row.result || !row.cell.refused.empty()) continue;
      if (share(row)) continue;
      if (stop_.stop_requested()) stop_now();
      if (!fits_budget(row.cell)) break;
      run_row(row);
      publish_row();
    }
    std::error_code ignored;
    fs::remove_all(work_, ignored);
    outcome_.complete = std::all_of(
        outcome_.rows.begin(), outcome_.rows.end(),
        [](const SweepRow& row) { return row.result.has_value() || !row.cell.refused.empty(); });
    write_sweep_files(request_, outcome_, run_);
    return std::move(outcome_);
  }

 private:
  [[noreturn]] void stop_now() {
    write_sweep_files(request_, outcome_, run_);
    throw Interrupted{format("{} cells are finished; the same command with --resume goes on",
                             std::count_if(outcome_.rows.begin(), outcome_.rows.end(),
                                           [](const SweepRow& row) { return row.result; }))};
  }

  void find_result(SweepRow& row) {
    row.result = cell_from_json(cells_ / (row.cell.id() + ".json"), row.cell, request_.settings);
  }

  /// Another metric chose the same layers: the result is the same.
  bool share(SweepRow& row) {
    for (const SweepRow& other : outcome_.rows) {
      if (&other == &row || !other.result || other.cell.key() != row.cell.key()) continue;
      row.result = other.result;
      row.shared_with = other.shared_with.empty() ? other.cell.id() : other.shared_with;
      return true;
    }
    return false;
  }

  /// The longest finished cell with this recovery says how long the next one may take.
  bool fits_budget(const SweepCell& cell) const {
    if (request_.time_budget <= 0) return true;
    double expected = 0;
    for (const SweepRow& row : outcome_.rows) {
      if (row.result && row.cell.recovery.name == cell.recovery.name && row.cell.kind == cell.kind)
        expected = std::max(expected, row.result->seconds);
    }
    return watch_.seconds() + expected <= request_.time_budget;
  }

  void run_row(SweepRow& row) {
    const Stopwatch watch;
    SweepResult result;
    reporter_.info(
        format("cell {}: {}", row.cell.id(),
               row.cell.removed.empty() ? std::string("-") : layer_set_text(row.cell.removed)));
    try {
      measure(row.cell, result);
    } catch (const Error& error) {
      // A model that a removal or a rate has broken is a finding, anything else is a mistake.
      if (error.kind() != ErrorKind::kInput) throw;
      result.failed = error.what();
      reporter_.warn(format("cell {} failed: {}", row.cell.id(), error.what()));
    }
    result.seconds = watch.seconds();
    write_file_atomically(cells_ / (row.cell.id() + ".json"),
                          cell_to_json(row.cell, result, request_.settings));
    row.result = std::move(result);
    ++outcome_.computed;
  }

  void measure(const SweepCell& cell, SweepResult& result) {
    fs::path model = request_.model;
    if (cell.kind != SweepCell::Kind::kDense) {
      result.layers = outcome_.layers - cell.remove;
      model = start_of(cell);
      if (cell.recovery.trains()) {
        const fs::path healed = work_ / (cell.id() + "_healed");
        const fs::path document = work_ / (cell.id() + "_healing.json");
        if (!fs::exists(healed) || !fs::exists(document)) {
          fs::remove_all(healed);
          write_file_atomically(document, hooks_.heal(model, healed, cell));
        }
        read_healing(read_file(document, 1 << 20), result);
        model = healed;
      }
    } else {
      result.layers = outcome_.layers;
    }
    result.bytes = stored_weight_bytes(model);
    read_evaluation(hooks_.evaluate(model), result);
    if (cell.recovery.trains()) keep_or_remove(model, cell);
  }

  /// The folder that a cell starts from: the removal or random weights. The last one stays for the
  /// next cell, which most often starts from the same.
  fs::path start_of(const SweepCell& cell) {
    const std::string name = cell.kind == SweepCell::Kind::kScratch
                                 ? digits(cell.remove) + "_scratch"
                                 : "without_" + layer_set_text(cell.removed);
    const fs::path folder = work_ / name;
    if (fs::exists(folder)) return folder;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(work_, ignored)) {
      const std::string other = entry.path().filename().string();
      if (other.starts_with("without_") || other.ends_with("_scratch"))
        fs::remove_all(entry.path());
    }
    const fs::path partial = work_ / (name + ".partial");
    fs::remove_all(partial);
    fs::create_directories(partial);
    if (cell.kind == SweepCell::Kind::kScratch) {
      write_scratch_model(request_.model, outcome_.layers - cell.remove, partial,
                          request_.scoring.seed, reporter_, stop_);
    } else if (fs::is_directory(request_.model)) {
      const auto kept = complement(cell.removed, outcome_.layers);
      prune_hf_folder(request_.model, kept, partial, reporter_, stop_);
    } else {
      const auto kept = complement(cell.removed, outcome_.layers);
      convert_to_hf(request_.model, partial, default_hf_dtype(request_.model), reporter_, kept,
                    stop_);
    }
    fs::rename(partial, folder);
    return folder;
  }

  void keep_or_remove(const fs::path& model, const SweepCell& cell) {
    if (request_.keep_models) {
      const fs::path models = run_.folder() / "models";
      fs::create_directories(models);
      fs::remove_all(models / cell.id());
      fs::rename(model, models / cell.id());
    } else {
      fs::remove_all(model);
    }
    std::error_code ignored;
    fs::remove(work_ / (cell.id() + "_healing.json"), ignored);
  }

  void publish_row() {
    write_sweep_files(request_, outcome_, run_);
    if (on_row_) on_row_(outcome_);
  }

  const SweepRequest& request_;
  const SweepHooks& hooks_;
  RunFolder& run_;
  Reporter& reporter_;
  const StopToken& stop_;
  const std::function<void(const SweepOutcome&)>& on_row_;
  fs::path cells_, work_;
  Stopwatch watch_;
  SweepOutcome outcome_;
};

}  // namespace

std::vector<SweepCell> plan_cells(const SweepRequest& request,
                                  const std::map<std::int64_t, LayerScores>& scores) {
  std::vector<SweepCell> cells;
  if (request.dense) {
    SweepCell cell;
    cell.kind = SweepCell::Kind::kDense;
    cells.push_back(std::move(cell));
  }
  const auto add = [&](SweepCell cell) {
    if (!cell.recovery.trains()) {
      cells.push_back(std::move(cell));
      return;
    }
    for (const double rate : request.rates) {
      cell.lr = rate;
      cells.push_back(cell);
    }
  };
  for (const std::int64_t count : request.counts) {
    for (const std::string& metric : request.metrics) {
      SweepCell cell;
      cell.remove = count;
      cell.metric = metric;
      try {
        if (metric == "sleb") check_sleb_rounds(scores.at(count).layers, count);
        cell.removed = select_layers(scores.at(count), metric, count);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kUsage) throw;
        cell.refused = error.what();
      }
      for (const Recovery& recovery : request.recoveries) {
        cell.recovery = recovery;
        add(cell);
      }
    }
    if (!request.scratch) continue;
    SweepCell cell;
    cell.kind = SweepCell::Kind::kScratch;
    cell.remove = count;
    cell.recovery = parse_recovery("full");
    add(cell);
  }
  return cells;
}

std::map<std::int64_t, LayerScores> sweep_scores(const SweepRequest& request,
                                                 const fs::path& folder, Reporter& reporter,
                                                 const StopToken& stop, SweepOutcome& outcome) {
  const PruneRequest& scoring = request.scoring;
  const auto checkpoint =
      std::shared_ptr<const DecoderCheckpoint>(DecoderCheckpoint::open(request.model));
  const std::int64_t layers = checkpoint->config().num_layers;
  at::Tensor ids;
  if (scoring.calibration_file) {
    ids =
        load_calibration(request.model, *scoring.calibration_file, scoring.samples, scoring.seq_len,
                         scoring.special_in_text, scoring.seed, reporter, outcome.calibration);
  }
  fs::create_directories(folder);
  std::map<std::int64_t, LayerScores> all;
  std::vector<std::int64_t> missing;
  for (const std::int64_t count : request.counts) {
    const auto found =
        earlier_scores(folder / (digits(count) + ".json"), outcome.calibration, request.metrics);
    if (found) {
      all[count] = *found;
    } else {
      missing.push_back(count);
    }
  }
  if (missing.empty()) return all;
  const Stopwatch watch;
  std::sort(missing.rbegin(), missing.rend());  // the largest first: its greedy search serves all
  const Decoder model = Decoder::load(checkpoint, scoring.type, scoring.device, scoring.residency);
  LayerScores shared;
  for (const std::int64_t count : missing) {
    ScoreOptions options;
    options.metrics.clear();
    options.remove = count;
    options.seed = scoring.seed;
    options.gradient_batch = scoring.gradient_batch;
    options.taylor_per_batch = scoring.taylor_per_batch;
    options.memory_bytes = scoring.memory_bytes;
    for (const std::string& metric : request.metrics) {
      const bool too_deep = metric == "sleb" && count > layers - 2;  // plan_cells says so
      if (!too_deep && (scores_runs(metric) || !shared.metrics.contains(metric)))
        options.metrics.push_back(metric);
    }
    LayerScores scores = score_layers(model, ids, options, reporter, stop);
    if (!scores.greedy.removed.empty()) shared.greedy = scores.greedy;
    for (const auto& [metric, values] : scores.metrics)
      if (!scores_runs(metric)) shared.metrics.emplace(metric, values);
    for (const auto& [metric, values] : shared.metrics) scores.metrics.emplace(metric, values);
    if (scores.cka.defined()) shared.cka = scores.cka;
    scores.cka = shared.cka;
    scores.greedy = shared.greedy;
    write_file_atomically(folder / (digits(count) + ".json"),
                          scores_to_json(scores, request.model.string(), outcome.calibration));
    all[count] = std::move(scores);
  }
  outcome.score_seconds = watch.seconds();
  return all;
}

SweepOutcome run_sweep(const SweepRequest& request, const SweepHooks& hooks, RunFolder& run,
                       Reporter& reporter, const StopToken& stop,
                       const std::function<void(const SweepOutcome&)>& on_row) {
  ESPALIER_ASSERT(hooks.heal && hooks.evaluate);
  return Sweep(request, hooks, run, reporter, stop, on_row).run();
}

}  // namespace espalier::layer_pruning
