// `espalier search`: cells of NATS-Bench's topology space, trained briefly and chosen by accuracy
// and redundancy.
#include "espalier/methods/redtest/search.h"

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/redtest/cell_space.h"
#include "espalier/methods/redtest/cell_training.h"
#include "espalier/methods/redtest/search_report.h"
#include "espalier/train/classifier_estimate.h"

#include "apps/cli/cnn_options.h"
#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"

namespace espalier::cli {
namespace {

namespace fs = std::filesystem;
namespace rt = redtest;

struct SearchOptions {
  OutputOptions output;
  ImageOptions images;
  CostOptions cost;
  std::string space = "nats-tss", strategy = "evolution", fitness = "redundancy", data, test_split,
              dtype = "float32", cuda_graph = "auto";
  std::int64_t evaluations = 50, population = 10, sample = 3, lag = 4, limit = 0, held_out = 0,
               epochs = 12, batch_size = 256, crop_pad = 4, eval_batch_size = 1000,
               msrs_batches = 0, msrs_batch_size = 256, jobs = 1;
  double lambda = 0.1, delta = 1.0, lr = 0.1, momentum = 0.9, weight_decay = 5e-4, beta = 100,
         tau = 0.8, time_budget = 0;
  bool compare = false, nesterov = true, flip = true, save_best = false;

  template <class V>
  void visit(V&& option) {
    option.group("Search");
    option("space", space,
           "cells to choose from: nats-tss, NATS-Bench's topology space of 15,625 cells",
           one_of({"nats-tss"}));
    option("evaluations", evaluations, "distinct cells to train", at_least(1));
    option("strategy", strategy, "regularised evolution, or uniform random sampling",
           one_of({"evolution", "random"}));
    option("fitness", fitness,
           "what evolution climbs: accuracy - lambda x MSRS_norm, or accuracy alone",
           one_of({"redundancy", "plain"}));
    option("lambda", lambda, "of --fitness redundancy: accuracy that MSRS_norm of 1 is worth",
           at_least(0));
    option("compare", compare,
           "search by the other fitness as well, from the same first population; a cell of both "
           "is trained once");
    option("population", population, "newest cells that children come from", at_least(1));
    option("sample", sample, "cells of each tournament", at_least(1));
    option("lag", lag,
           "newest proposals whose results a child does not know yet; 1 is the sequential "
           "algorithm, and the most that --jobs may be",
           at_least(1));
    option("delta", delta,
           "percentage points of accuracy below the best within which the least redundant cell is "
           "chosen",
           in_range(0, 100));
    output.visit(option);
    images.visit(option);
    option("data", data, "a folder of class folders, an archive of one, or CIFAR's binary batches",
           placeholder("DIR") | required());
    option("limit", limit, "only the first N images, round-robin over the classes; 0 takes all",
           at_least(0));
    option("held_out", held_out,
           "of them the last N do not train: accuracy and MSRS are theirs; 0 takes a tenth",
           at_least(0));
    option("test_split", test_split,
           "split of --data that is measured too, reported, and never chosen by; default: none",
           placeholder("NAME"));
    option.group("Training of a cell");
    option("dtype", dtype, "type of activations; weights stay float32",
           one_of({"float32", "bfloat16"}));
    option("epochs", epochs, "passes over the images", at_least(1));
    option("batch_size", batch_size, "images per step", at_least(1));
    option("lr", lr, "highest learning rate; falls to 0 along a cosine", at_least(0));
    option("momentum", momentum, "of SGD", in_range(0, 0.9999));
    option("nesterov", nesterov, "Nesterov's form of the momentum");
    option("weight_decay", weight_decay, "added to the gradient", at_least(0));
    option("crop_pad", crop_pad, "random crop after padding by this many zero pixels; 0 is off",
           in_range(0, 64));
    option("flip", flip, "mirror every second image, at random");
    option("cuda_graph", cuda_graph,
           "on CUDA: record a step once and replay it; auto does where that is possible",
           one_of({"auto", "off"}));
    option.group("Measuring");
    option("eval_batch_size", eval_batch_size, "images per forward pass of accuracy", at_least(1));
    option("msrs_batches", msrs_batches,
           "batches of held-out images for MSRS; 0: as many as there are, at most 10", at_least(0));
    option("msrs_batch_size", msrs_batch_size, "images in each of them", at_least(4));
    option("beta", beta, "steepness of MSRS at tau", at_least(0));
    option("tau", tau, "CKA above which two layers count as alike", in_range(0, 1));
    option.group("Running");
    option("jobs", jobs,
           "cells that train at a time, on one GPU or sharing the CPU threads; does not change "
           "what is found",
           in_range(1, 16));
    option("time_budget", time_budget,
           "seconds; no cell is begun that would end later, --resume goes on; 0 is no limit",
           at_least(0));
    option("save_best", save_best, "keep the trained network of the chosen cell as OUT/model");
    cost.visit(option);
  }
};

/// The fitness that was asked for, with --compare the other one behind it.
std::vector<rt::SearchFitness> fitness_of(const SearchOptions& o) {
  const rt::SearchFitness redundancy{"redundancy", o.lambda}, plain{"plain", 0};
  std::vector<rt::SearchFitness> all{redundancy, plain};
  if (o.fitness == "plain") std::swap(all[0], all[1]);
  if (!o.compare) all.pop_back();
  return all;
}

rt::SearchRequest request_of(const SearchOptions& o, const Context& context) {
  if (o.compare && o.strategy == "random") {
    throw Error(ErrorKind::kUsage, "--compare",
                "compares what two evolutions find, but random sampling looks at no fitness")
        .hint("drop --compare, or --strategy evolution");
  }
  rt::SearchRequest request;
  request.rules.strategy =
      o.strategy == "random" ? rt::SearchStrategy::kRandom : rt::SearchStrategy::kEvolution;
  request.rules.evaluations = o.evaluations;
  request.rules.population = o.population;
  request.rules.sample = o.sample;
  request.rules.lag = o.lag;
  request.rules.seed = static_cast<std::uint64_t>(context.common.seed);
  request.fitness = fitness_of(o);
  request.delta = o.delta;
  request.jobs = o.jobs;
  request.time_budget = o.time_budget;
  request.keep_weights = o.save_best;
  rt::check_search(request);
  return request;
}

rt::CellTraining training_of(const SearchOptions& o, const Context& context) {
  rt::CellTraining training;
  ClassifierOptions& c = training.classifier;
  c = rt::short_training(o.epochs);
  c.batch_size = o.batch_size;
  c.optimizer = SgdOptions{o.momentum, o.nesterov && o.momentum > 0, o.weight_decay};
  c.lr = o.lr;
  c.augment = {o.crop_pad, o.flip, 0};
  c.type = o.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  c.capture = o.cuda_graph == "auto";
  c.seed = static_cast<std::uint64_t>(context.common.seed);
  CnnConfig config = cnn_config(nats_cell_text(rt::tss_cell(rt::kTssCells - 1)), 2);
  set_normalisation(o.images, config);
  training.mean = config.mean;
  training.std = config.std;
  training.device = ModelOptions::device(context);
  training.eval_batch_size = o.eval_batch_size;
  training.msrs_batches = o.msrs_batches;
  training.msrs_batch_size = o.msrs_batch_size;
  training.beta = o.beta;
  training.tau = o.tau;
  return training;
}

rt::SearchImages images_of(const SearchOptions& o, Reporter& reporter) {
  constexpr std::int64_t kChannels = 3;
  const ImageSet all = load_images(o.data, o.images, kChannels, o.limit, "train", reporter);
  std::optional<ImageSet> test;
  if (!o.test_split.empty()) {
    ImageOptions options = o.images;
    options.split = o.test_split;
    test = load_images(o.data, options, kChannels, 0, o.test_split, reporter);
    if (test->classes != all.classes) {
      throw Error(ErrorKind::kInput, o.data,
                  format("the {} classes of split {} are not the {} of the training images",
                         test->classes.size(), o.test_split, all.classes.size()));
    }
  }
  return rt::split_for_search(all, o.held_out, std::move(test));
}

/// What a cell's result depends on besides the cell: a resumed search with other settings trains
/// anew.
std::string settings_of(const SearchOptions& o, const rt::SearchImages& images,
                        const rt::CellTraining& training) {
  Json json;
  json["training"] = images_sha256(images.training);
  json["held_out"] = images_sha256(images.held_out);
  json["test"] = images.test ? images_sha256(*images.test) : "";
  json["classes"] = images.training.classes;
  json["mean"] = training.mean;
  json["std"] = training.std;
  json["epochs"] = o.epochs;
  json["batch_size"] = o.batch_size;
  json["lr"] = o.lr;
  json["momentum"] = o.momentum;
  json["nesterov"] = o.nesterov;
  json["weight_decay"] = o.weight_decay;
  json["crop_pad"] = o.crop_pad;
  json["flip"] = o.flip;
  json["dtype"] = o.dtype;
  json["device"] = training.device.is_cuda() ? "cuda" : "cpu";
  json["msrs"] = {o.msrs_batches, o.msrs_batch_size};
  json["beta"] = o.beta;
  json["tau"] = o.tau;
  json["seed"] = training.classifier.seed;
  return json.dump();
}

/// At most: as if every cell were the largest.
void print_estimate(const SearchOptions& o, Context& context, const rt::SearchRequest& request,
                    const rt::SearchImages& images, const rt::CellTraining& training) {
  NatsCell largest;
  largest.edges.fill(NatsOp::kConv3x3);
  CnnConfig config = cnn_config(nats_cell_text(largest),
                                static_cast<std::int64_t>(images.training.classes.size()));
  config.image_size = images.training.pixels.size(2);
  const Cnn net = Cnn::make(config, 0).to(training.device, at::kFloat);
  const ClassifierEstimate one =
      estimate_classifier(net, images.training, training.classifier, context.reporter);
  const auto cells = o.evaluations * static_cast<std::int64_t>(request.fitness.size());
  const bool on_cpu = training.device.is_cpu();
  CostEstimate cost;
  cost.peak_memory = {peak_rss().count +
                      (on_cpu ? o.jobs * (one.weight_bytes + one.activation_bytes) : 0)};
  cost.peak_device_memory = {on_cpu ? 0 : o.jobs * one.peak_bytes()};
  cost.disk = {o.jobs * one.checkpoint_bytes};
  cost.seconds = one.seconds * static_cast<double>(cells);
  cost.note = format(
      "at most {} cells, {} steps each on {} images, one after the other, every one "
      "as large as the largest ({} parameters)",
      cells, format_count(one.steps), format_count(images.training.size()),
      format_count(net.parameter_count()));
  print_cost(context, "search", cost, o.output.out);
}

/// ATen's threads are shared by the cells that train at a time; given back at the end.
class SharedThreads {
 public:
  SharedThreads(const rt::CellTraining& training, std::int64_t jobs)
      : before_(at::get_num_threads()) {
    if (jobs > 1 && training.device.is_cpu())
      at::set_num_threads(std::max(1, before_ / static_cast<int>(jobs)));
  }
  ~SharedThreads() { at::set_num_threads(before_); }
  SharedThreads(const SharedThreads&) = delete;
  SharedThreads& operator=(const SharedThreads&) = delete;

 private:
  int before_;
};

void print_result(const SearchOptions& o, Context& context, const rt::SearchRequest& request,
                  const rt::SearchOutcome& outcome, double seconds) {
  std::string text = search_table(outcome);
  const std::int64_t chosen = outcome.searches.front().choice.chosen;
  if (outcome.complete) {
    text += format(
        "\nchosen: {}\n{} cells, {} of them trained now, in {}; open {}/run/report.html\n"
        "Next: espalier train classifier --arch \"$(cat {}/arch.txt)\" --data {} --epochs 200 "
        "--out NET\n",
        nats_cell_text(outcome.cells[static_cast<std::size_t>(chosen)].cell), outcome.cells.size(),
        outcome.computed, format_seconds(seconds), o.output.out, o.output.out, o.data);
  } else {
    text += format(
        "\n{} cells are trained, {} of them now, in {}; the same command with --resume goes on\n",
        outcome.cells.size(), outcome.computed, format_seconds(seconds));
  }
  Json json = parse_json(search_json(request, outcome), "search");
  json["jobs"] = o.jobs;
  json["seconds"] = seconds;
  json["out"] = o.output.out;
  context.print_result(text, dump_json(json));
}

int run_search_verb(const SearchOptions& o, Context& context) {
  const Stopwatch watch;
  rt::SearchRequest request = request_of(o, context);
  rt::CellTraining training = training_of(o, context);
  check_output_apart(o.output.out, {o.data});
  if (o.cost.dry_run) {
    const rt::SearchImages images = images_of(o, context.reporter);
    check_cell_training(training, images);
    print_estimate(o, context, request, images, training);
    return 0;
  }
  RunFacts facts;
  facts.verb = "search";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = request.rules.seed;
  facts.device = training.device.str();
  facts.threads = at::get_num_threads();
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), facts);
  if (o.output.resume) take_over(o.output.out, run.folder(), {"cells"});
  Reporter& reporter = run.log_to_file(context.reporter);
  const rt::SearchImages images = images_of(o, reporter);
  check_cell_training(training, images);
  run.add_input(o.data, "");
  request.settings = settings_of(o, images, training);
  // Checkpoints of other settings must not be continued.
  const fs::path work = run.run_dir() / "work";
  training.work = work / sha256_hex(request.settings).substr(0, 16);
  fs::create_directories(training.work);

  rt::SearchHooks hooks;
  hooks.evaluate = [&](const NatsCell& cell, const fs::path& weights, Reporter& one) {
    return train_cell(cell, images, training, weights, one, context.stop);
  };
  const SharedThreads threads(training, o.jobs);
  const rt::SearchOutcome outcome = run_search(request, hooks, run, reporter, context.stop);
  if (outcome.complete) {
    fs::remove_all(work);
    run.publish();
  }
  print_result(o, context, request, outcome, watch.seconds());
  return 0;
}

}  // namespace

Command search_command() {
  return make_command<SearchOptions>(
      "search", "Train",
      "small networks by accuracy and redundancy: evolution over NATS-Bench cells, resumable",
      run_search_verb,
      {"espalier search --space nats-tss --data cifar10.tar.xz --evaluations 50 --fitness "
       "redundancy --compare --device cuda --dtype bfloat16 --jobs 4 --out search",
       "espalier search --data DIR --evaluations 20 --epochs 3 --limit 5000 --save-best --out "
       "search --time-budget 3000 --resume",
       "espalier search --data DIR --evaluations 100 --strategy random --out sample --json"});
}

}  // namespace espalier::cli
