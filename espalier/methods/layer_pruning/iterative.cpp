// See iterative.h. Layout while running: run/rounds/NN/{pruned,healed,round.json}.
#include "espalier/methods/layer_pruning/iterative.h"

#include <algorithm>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/run/build_info.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

Json number_or_null(double value) { return value > 0 ? Json(value) : Json(nullptr); }

Json round_json(const IterativeRound& round) {
  return {
      {"removed", round.removed},
      {"perplexity",
       {{"before", number_or_null(round.before)},
        {"pruned", number_or_null(round.pruned)},
        {"healed", number_or_null(round.healed)}}},
      {"healing", round.healing.empty() ? Json(nullptr) : parse_json(round.healing, "healing")}};
}

IterativeRound round_from(const Json& json) {
  IterativeRound round;
  round.removed = json.at("removed").get<std::vector<std::int64_t>>();
  const auto value = [&](const char* name) {
    const Json& found = json.at("perplexity").at(name);
    return found.is_null() ? 0.0 : found.get<double>();
  };
  round.before = value("before");
  round.pruned = value("pruned");
  round.healed = value("healed");
  if (!json.at("healing").is_null()) round.healing = dump_json(json.at("healing"));
  return round;
}

class Rounds {
 public:
  Rounds(const PruneJob& job, const PruneRequest& request, std::int64_t step,
         const HealFunction& heal, RunFolder& run, Reporter& reporter, const StopToken& stop)
      : job_(job),
        request_(request),
        step_(step),
        heal_(heal),
        run_(run),
        reporter_(reporter),
        stop_(stop),
        folder_(run.run_dir() / "rounds") {}

  IterativeOutcome run() {
    const auto checkpoint = DecoderCheckpoint::open(job_.source);
    const DecoderConfig& config = checkpoint->config();
    outcome_.layers = config.num_layers;
    if (request_.remove || request_.keep || request_.kept || request_.scores_file) {
      throw Error(ErrorKind::kUsage, "--iterative",
                  "scores the layers anew in each round, so they cannot be given beforehand")
          .hint("--iterative --count 7 --method bi, without --remove, --keep, --plan and --scores");
    }
    const RemovalSize size = removal_size(request_, outcome_.layers);
    outcome_.method =
        request_.method != "auto"
            ? request_.method
            : auto_metric(true,
                          static_cast<double>(size.count) / static_cast<double>(config.num_layers),
                          config.hidden_size);
    check_metric(outcome_.method, "--method");
    outcome_.kept.resize(static_cast<std::size_t>(outcome_.layers));
    std::iota(outcome_.kept.begin(), outcome_.kept.end(), 0);
    fs::create_directories(folder_);
    check_same_request(size.count);
    const std::int64_t rounds = (size.count + step_ - 1) / step_;
    for (std::int64_t round = 0; round < rounds; ++round) {
      stop_if_asked();
      one_round(round, std::min(step_, size.count - round * step_), rounds);
    }
    finish(rounds - 1);
    return std::move(outcome_);
  }

 private:
  void stop_if_asked() {
    if (!stop_.stop_requested()) return;
    run_.keep();
    throw Interrupted{format("{} rounds are finished; the same command with --resume goes on",
                             outcome_.rounds.size())};
  }

  /// What the finished rounds of a resumed run were made for.
  void check_same_request(std::int64_t count) const {
    const Json wanted = {
        {"source", fs::absolute(job_.source).lexically_normal().string()},
        {"method", outcome_.method},
        {"count", count},
        {"step", step_},
        {"samples", request_.samples},
        {"seq_len", request_.seq_len},
        {"seed", request_.seed},
        {"calibration",
         request_.calibration_file ? request_.calibration_file->string() : std::string()}};
    const fs::path file = folder_ / "request.json";
    if (!fs::exists(file)) return write_file_atomically(file, dump_json(wanted));
    const Json found = read_json_file(file, 1 << 20);
    for (const auto& [key, value] : wanted.items()) {
      if (found.contains(key) && found[key] == value) continue;
      throw Error(
          ErrorKind::kUsage, "--resume",
          format("the interrupted run had {} {}, now it is {}", key,
                 found.contains(key) ? found[key].dump() : std::string("unset"), value.dump()))
          .hint("repeat the command with the values it had, or start anew without --resume");
    }
  }

  fs::path round_folder(std::int64_t round) const { return folder_ / format("{:02}", round + 1); }

  void one_round(std::int64_t round, std::int64_t count, std::int64_t rounds) {
    const fs::path here = round_folder(round), file = here / "round.json";
    if (fs::exists(file)) {
      add(round_from(read_json_file(file, 1 << 26)));
      ++outcome_.resumed_rounds;
      return;
    }
    reporter_.info(format("round {} of {}", round + 1, rounds));
    const fs::path source = round == 0 ? job_.source : round_folder(round - 1) / "healed";
    PruneRequest request = request_;
    request.method = outcome_.method;
    request.ratio.reset();
    request.count = count;
    const PrunePlan plan = plan_pruning(source, request, reporter_, stop_);
    IterativeRound result;
    for (const std::int64_t layer : plan.chosen.removed)
      result.removed.push_back(outcome_.kept[static_cast<std::size_t>(layer)]);
    result.before = plan.dense_perplexity;
    result.pruned = plan.chosen.perplexity;
    outcome_.calibration = plan.calibration;
    fs::create_directories(here);
    if (!fs::exists(here / "healed")) {
      RunFolder pruned =
          RunFolder::create(here / "pruned", OutputPolicy::kOverwrite, {.verb = "prune"});
      PruneJob job = job_;
      job.source = source;
      write_pruned_folder(job, plan, pruned, reporter_, stop_);
      pruned.publish();
      try {
        result.healing = heal_(here / "pruned", here / "healed");
      } catch (...) {
        run_.keep();  // finished rounds, and what healing saved of this one
        throw;
      }
    }
    if (request_.calibration_file) result.healed = perplexity_of(here / "healed");
    write_file_atomically(file, dump_json(round_json(result)));
    run_.keep();
    fs::remove_all(here / "pruned");
    if (round > 0) fs::remove_all(round_folder(round - 1) / "healed");
    add(std::move(result));
  }

  double perplexity_of(const fs::path& model) {
    Calibration description;
    const at::Tensor ids =
        load_calibration(model, *request_.calibration_file, request_.samples, request_.seq_len,
                         request_.special_in_text, request_.seed, reporter_, description);
    outcome_.calibration = description;
    return perplexity_without(
        Decoder::load(model, request_.type, request_.device, request_.residency), {}, ids,
        reporter_, stop_);
  }

  void add(IterativeRound round) {
    for (const std::int64_t layer : round.removed) {
      const auto found = std::find(outcome_.kept.begin(), outcome_.kept.end(), layer);
      ESPALIER_ASSERT(found != outcome_.kept.end());
      outcome_.kept.erase(found);
      outcome_.removed.push_back(layer);
    }
    outcome_.rounds.push_back(std::move(round));
  }

  /// The last round's model becomes the output; reports of its healing stay under run/rounds.
  void finish(std::int64_t last) {
    std::sort(outcome_.removed.begin(), outcome_.removed.end());
    const fs::path healed = round_folder(last) / "healed";
    if (request_.calibration_file && outcome_.calibration.file.empty()) perplexity_of(healed);
    for (const auto& entry : fs::directory_iterator(healed)) {
      const fs::path name = entry.path().filename();
      if (name == "run") continue;
      fs::remove_all(run_.folder() / name);
      fs::rename(entry.path(), run_.folder() / name);
      if (fs::is_regular_file(run_.folder() / name))
        outcome_.bytes += fs::file_size(run_.folder() / name);
    }
    fs::remove_all(healed);
    write_file_atomically(run_.folder() / "espalier_pruning.json",
                          iterative_record(job_, outcome_));
    write_file_atomically(run_.folder() / "README.md", card());
  }

  std::string card() const {
    const std::string name = model_name(job_.source);
    std::string text = card_front_matter(job_.source);
    text += format("# {} without {} of its {} layers\n\n", name, outcome_.removed.size(),
                   outcome_.layers);
    text += format(
        "Layers {} of `{}` were removed with espalier in {} rounds, chosen by the layer score `{}` "
        "and healed after each round.\n\n",
        layer_set_text(outcome_.removed), name, outcome_.rounds.size(), outcome_.method);
    text += markdown_table(
        {"round", "layers removed", "perplexity before", "after removal", "after healing"},
        iterative_rows(outcome_));
    if (!job_.command_line.empty()) text += format("\n## How\n\n```\n{}\n```\n", job_.command_line);
    return text +
           format("\nespalier {}. All numbers: `espalier_pruning.json`.\n", build_info().version);
  }

  const PruneJob& job_;
  const PruneRequest& request_;
  std::int64_t step_ = 1;
  const HealFunction& heal_;
  RunFolder& run_;
  Reporter& reporter_;
  const StopToken& stop_;
  fs::path folder_;
  IterativeOutcome outcome_;
};

}  // namespace

IterativeOutcome prune_iteratively(const PruneJob& job, const PruneRequest& request,
                                   std::int64_t step, const HealFunction& heal, RunFolder& run,
                                   Reporter& reporter, const StopToken& stop) {
  ESPALIER_ASSERT(step >= 1 && heal);
  return Rounds(job, request, step, heal, run, reporter, stop).run();
}

std::string iterative_record(const PruneJob& job, const IterativeOutcome& outcome) {
  Json json = Json::object();
  json["schema"] = "espalier.pruning/1";
  json["source"] = model_name(job.source);
  json["method"] = outcome.method;
  json["layers_before"] = outcome.layers;
  json["kept"] = outcome.kept;
  json["removed"] = outcome.removed;
  json["calibration"] = nullptr;
  if (!outcome.calibration.file.empty()) {
    json["calibration"] = {{"file", fs::path(outcome.calibration.file).filename().string()},
                           {"sha256", outcome.calibration.sha256},
                           {"n", outcome.calibration.samples},
                           {"T", outcome.calibration.seq_len},
                           {"seed", outcome.calibration.seed},
                           {"add_bos", false}};
  }
  json["rounds"] = Json::array();
  for (const IterativeRound& round : outcome.rounds) json["rounds"].push_back(round_json(round));
  json["command"] = job.command_line;
  json["version"] = build_info().version;
  return dump_json(json);
}

std::vector<std::vector<std::string>> iterative_rows(const IterativeOutcome& outcome) {
  const auto text = [](double value) {
    return value <= 0    ? std::string("-")
           : value < 1e5 ? format("{:.2f}", value)
                         : format("{:.3g}", value);
  };
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < outcome.rounds.size(); ++i) {
    const IterativeRound& round = outcome.rounds[i];
    rows.push_back({format("{}", i + 1), layer_set_text(round.removed), text(round.before),
                    text(round.pruned), text(round.healed)});
  }
  return rows;
}

}  // namespace espalier::layer_pruning
