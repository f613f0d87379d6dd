// From a request to a list of kept layers.
#include "espalier/methods/layer_pruning/prune_plan.h"

#include <algorithm>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/data/token_segments.h"
#include "espalier/eval/perplexity.h"
#include "espalier/methods/layer_pruning/sleb.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

constexpr std::string_view kHowMuch =
    "say how much goes: --remove 12-18,25, --keep 0-11,19-29, --ratio 0.25 or --count 7";

/// "wiki.test.txt" and "test_split.txt", but not "latest.txt".
bool looks_like_test_split(const std::filesystem::path& file) {
  std::string word;
  for (const char c : file.filename().string() + ".") {
    if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (word == "test") {
      return true;
    } else {
      word.clear();
    }
  }
  return false;
}

/// The metrics that this request needs and `known` does not hold.
std::vector<std::string> missing_metrics(const std::string& method, bool calibrated,
                                         const LayerScores& known) {
  std::vector<std::string> missing;
  for (const std::string& metric : metric_names()) {
    const bool wanted = metric == method || (calibrated && metric == runner_up_metric(method));
    if (wanted && !known.metrics.contains(metric)) missing.push_back(metric);
  }
  return missing;
}

/// Scores of runs belong to one run length, and a greedy search ends after its rounds: those of
/// another number of layers are dropped, to be computed anew.
void drop_other_runs(LayerScores& scores, std::int64_t remove) {
  std::erase_if(scores.metrics, [&](const auto& entry) {
    if (!scores_runs(entry.first)) return false;
    const auto past = std::count_if(entry.second.begin(), entry.second.end(),
                                    [](double value) { return std::isnan(value); });
    return past + 1 != remove;
  });
  if (static_cast<std::int64_t>(scores.greedy.removed.size()) >= remove) return;
  scores.metrics.erase("sleb");
  scores.greedy = {};
}

/// sglp has gradnorm's numbers, and is nothing without the matrix.
void drop_unsegmentable(LayerScores& scores) {
  if (!scores.cka.defined())
    scores.metrics.erase("sglp");
  else if (scores.metrics.contains("gradnorm"))
    scores.metrics.emplace("sglp", scores.metrics.at("gradnorm"));
}

/// taylor+ has taylor's numbers, and ppl+ ppl's.
void share_numbers(LayerScores& scores) {
  for (const char* metric : {"taylor", "ppl"}) {
    const std::string plus = std::string(metric) + "+";
    if (scores.metrics.contains(metric)) scores.metrics.emplace(plus, scores.metrics.at(metric));
    if (scores.metrics.contains(plus)) scores.metrics.emplace(metric, scores.metrics.at(plus));
  }
}

LayerScores scores_of(const PruneRequest& request, std::int64_t num_layers) {
  if (!request.scores_file) return {};
  LayerScores scores = read_scores(*request.scores_file, num_layers);
  if (scores.metrics.contains(kOrderMetric) && request.method != "auto" &&
      request.method != kOrderMetric) {
    throw Error(ErrorKind::kUsage, "--method",
                format("{} chooses layers, but {} holds a finished order of them", request.method,
                       request.scores_file->string()))
        .hint("leave --method out, or give a scores.json");
  }
  share_numbers(scores);
  drop_unsegmentable(scores);
  return scores;
}

}  // namespace

RemovalSize removal_size(const PruneRequest& request, std::int64_t num_layers) {
  const int given =
      static_cast<int>(request.remove.has_value()) + static_cast<int>(request.keep.has_value()) +
      static_cast<int>(request.kept.has_value()) + static_cast<int>(request.ratio.has_value()) +
      static_cast<int>(request.count.has_value());
  if (given != 1) {
    throw Error(
        ErrorKind::kUsage, "layers to remove",
        given == 0
            ? std::string("neither layers nor a number of layers were given")
            : format("{} of --remove, --keep, --plan, --ratio and --count were given, expected one",
                     given))
        .hint(kHowMuch);
  }
  RemovalSize size;
  const char* by_list = request.remove ? "--remove" : request.keep ? "--keep" : "--plan";
  if (request.remove || request.keep || request.kept) {
    if (request.method != "auto") {
      throw Error(ErrorKind::kUsage, "--method",
                  format("{} chooses layers, but {} names them already", request.method, by_list))
          .hint("give --count or --ratio with --method, or leave --method out");
    }
    if (request.remove) {
      size.removed = parse_layer_set(*request.remove, num_layers, "--remove");
    } else {
      const auto kept =
          request.kept ? *request.kept : parse_layer_list(*request.keep, num_layers, "--keep");
      check_kept(kept, num_layers);
      size.removed = complement(kept, num_layers);
    }
    size.count = static_cast<std::int64_t>(size.removed.size());
  } else if (request.count) {
    size.count = *request.count;
  } else {
    if (!(*request.ratio >= 0 && *request.ratio < 1)) {
      throw Error(ErrorKind::kUsage, "--ratio",
                  format("is {}, expected at least 0 and below 1", *request.ratio));
    }
    // A little slack: 0.7 * 10 is 6.999... in binary, and the user means 7.
    size.count = static_cast<std::int64_t>(
        std::floor(*request.ratio * static_cast<double>(num_layers) + 1e-9));
  }
  if (size.count < 1 || size.count >= num_layers) {
    throw Error(ErrorKind::kUsage,
                request.ratio   ? "--ratio"
                : request.count ? "--count"
                                : by_list,
                format("{} of the model's {} layers would go; between 1 and {} can", size.count,
                       num_layers, num_layers - 1))
        .hint(kHowMuch);
  }
  return size;
}

std::string runner_up_metric(const std::string& method) {
  return method == "angular" ? "bi" : "angular";
}

at::Tensor load_calibration(const std::filesystem::path& model, const std::filesystem::path& file,
                            std::int64_t samples, std::int64_t seq_len, bool special_in_text,
                            std::uint64_t seed, Reporter& reporter, Calibration& description) {
  const Tokenizer tokenizer = Tokenizer::load(model);
  const TokenText text =
      load_token_text(file, tokenizer, reporter, special_in_text, samples * seq_len);
  if (looks_like_test_split(file)) {
    reporter.warn(
        format("{} looks like a test split: layers chosen on it, and perplexities of it "
               "afterwards, would leak",
               file.string()));
  }
  description = {file.string(), text.sha256, samples, seq_len, seed};
  return cut_segments(text, seq_len, samples, samples);
}

double perplexity_without(const Decoder& model, const std::vector<std::int64_t>& removed,
                          const at::Tensor& ids, Reporter& reporter, const StopToken& stop) {
  PerplexityOptions options;
  options.seq_len = ids.size(1);
  options.batch_tokens = 2560;
  return perplexity(model.with_layers(complement(removed, model.num_layers())), ids, options, 0,
                    reporter, stop)
      .perplexity;
}

namespace {

/// What is measured with the model itself, loaded only when something needs it.
class Measurement {
 public:
  Measurement(std::shared_ptr<const DecoderCheckpoint> checkpoint, const PruneRequest& request,
              at::Tensor ids, Reporter& reporter, const StopToken& stop)
      : checkpoint_(std::move(checkpoint)),
        request_(request),
        ids_(std::move(ids)),
        reporter_(reporter),
        stop_(stop) {}

  void add_scores(const std::vector<std::string>& metrics, std::int64_t remove,
                  LayerScores& scores) {
    ScoreOptions options;
    options.metrics.clear();
    options.remove = remove;
    options.seed = request_.seed;
    options.gradient_batch = request_.gradient_batch;
    options.taylor_per_batch = request_.taylor_per_batch;
    options.memory_bytes = request_.memory_bytes;
    scores.layers = checkpoint_->config().num_layers;
    for (const std::string& metric : metrics) {
      if (auto blind = blind_scores(metric, scores.layers, request_.seed)) {
        scores.metrics[metric] = std::move(*blind);
      } else {
        options.metrics.push_back(metric);
      }
    }
    if (options.metrics.empty()) return;
    LayerScores computed = score_layers(decoder(), ids_, options, reporter_, stop_);
    scores.block_forwards += computed.block_forwards;
    scores.metrics.merge(computed.metrics);
    if (computed.cka.defined()) scores.cka = computed.cka;
    if (!computed.greedy.removed.empty()) scores.greedy = std::move(computed.greedy);
  }

  double perplexity_without_layers(const std::vector<std::int64_t>& removed) {
    return perplexity_without(decoder(), removed, ids_, reporter_, stop_);
  }

 private:
  const Decoder& decoder() {
    // Without text only magnitudes are left to compute: each layer is read once, so nothing is
    // gained by keeping them.
    const Residency residency = ids_.defined() ? request_.residency : Residency::kStreamed;
    if (!decoder_) decoder_ = Decoder::load(checkpoint_, request_.type, request_.device, residency);
    return *decoder_;
  }

  std::shared_ptr<const DecoderCheckpoint> checkpoint_;
  const PruneRequest& request_;
  at::Tensor ids_;
  Reporter& reporter_;
  const StopToken& stop_;
  std::optional<Decoder> decoder_;
};

std::string method_of(const PruneRequest& request, const RemovalSize& size,
                      const DecoderConfig& config, const LayerScores& known) {
  if (!size.removed.empty()) return "list";
  if (known.metrics.contains(kOrderMetric)) return kOrderMetric;
  if (request.method == kOrderMetric) {
    throw Error(ErrorKind::kUsage, "--method", "order takes the layers from a file, there is none")
        .hint("--scores block_order.csv");
  }
  if (request.method != "auto") {
    check_metric(request.method, "--method");
    return request.method;
  }
  const double ratio = static_cast<double>(size.count) / static_cast<double>(config.num_layers);
  return auto_metric(request.recovery_planned, ratio, config.hidden_size, request.thorough);
}

void check_calibration(const std::vector<std::string>& missing, const PruneRequest& request,
                       const std::string& method) {
  if (request.calibration_file || std::none_of(missing.begin(), missing.end(), needs_calibration))
    return;
  throw Error(ErrorKind::kUsage, "--calibration",
              format("is needed: the layer score `{}` is computed from text", method))
      .hint(
          "--calibration FILE with text of the kind the model is for, or --method reverse, which "
          "needs none");
}

}  // namespace

PrunePlan plan_pruning(const std::filesystem::path& model, const PruneRequest& request,
                       Reporter& reporter, const StopToken& stop) {
  const std::shared_ptr<const DecoderCheckpoint> checkpoint = DecoderCheckpoint::open(model);
  const bool calibrated = request.calibration_file.has_value();
  PrunePlan plan;
  plan.layers = checkpoint->config().num_layers;
  const RemovalSize size = removal_size(request, plan.layers);
  plan.scores = scores_of(request, plan.layers);
  plan.chosen = {method_of(request, size, checkpoint->config(), plan.scores), size.removed, 0};
  const std::string& method = plan.chosen.method;
  if (method == "list") check_removal(size.removed, plan.layers, request.force);
  if (method == "sleb") check_sleb_rounds(plan.layers, size.count);
  drop_other_runs(plan.scores, size.count);
  plan.scores.segments = request.segments;
  const std::vector<std::string> missing = missing_metrics(method, calibrated, plan.scores);
  check_calibration(missing, request, method);

  at::Tensor ids;
  if (calibrated) {
    ids = load_calibration(model, *request.calibration_file, request.samples, request.seq_len,
                           request.special_in_text, request.seed, reporter, plan.calibration);
  }
  Measurement measurement(checkpoint, request, ids, reporter, stop);
  measurement.add_scores(missing, size.count, plan.scores);
  if (method != "list") {
    plan.chosen.removed = select_layers(plan.scores, method, size.count);
    check_removal(plan.chosen.removed, plan.layers, request.force);
  }
  plan.kept = complement(plan.chosen.removed, plan.layers);
  if (method == "sglp") plan.segments = segment_plan(plan.scores, size.count);
  if (!calibrated) return plan;
  plan.dense_perplexity = measurement.perplexity_without_layers({});
  plan.chosen.perplexity = measurement.perplexity_without_layers(plan.chosen.removed);
  const std::string other = runner_up_metric(method);
  plan.runner_up = PruneChoice{other, select_layers(plan.scores, other, size.count), 0};
  plan.runner_up->perplexity = plan.runner_up->removed == plan.chosen.removed
                                   ? plan.chosen.perplexity
                                   : measurement.perplexity_without_layers(plan.runner_up->removed);
  return plan;
}

}  // namespace espalier::layer_pruning
