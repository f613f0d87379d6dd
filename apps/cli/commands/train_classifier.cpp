// `espalier train classifier`: an image classifier from random or given weights.
#include <algorithm>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/eval/accuracy.h"
#include "espalier/report/run_report.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/train/classifier.h"
#include "espalier/train/classifier_estimate.h"

#include "apps/cli/cnn_options.h"
#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/machine.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"

namespace espalier::cli {
namespace {

struct TrainClassifierOptions {
  OutputOptions output;
  CostOptions cost;
  ImageOptions images;
  std::string data, eval_data, eval_split = "test", arch, weights, dtype = "float32",
                               optimizer = "sgd", lr_decay = "cosine", lr_changes = "step",
                               keep = "last", cuda_graph = "auto";
  std::vector<std::string> milestones;
  std::int64_t epochs = 1, batch_size = 256, eval_batch_size = 1000, limit = 0, warmup_epochs = 0,
               crop_pad = 4, eval_every = 1, checkpoint_every = 1;
  double lr = 0.1, lr_floor = 0, gamma = 0.1, momentum = 0.9, weight_decay = 5e-4, beta1 = 0.9,
         beta2 = 0.999, eps = 1e-8, label_smoothing = 0, ema = 0, clip = 0, rotation = 0;
  bool nesterov = true, decay_norms = true, flip = true, scratch = false;

  template <class V>
  void visit(V&& option) {
    option.group("Model");
    option("arch", arch,
           "resnet20 ... resnet1202 (CIFAR), resnet18 ... resnet152 (torchvision), vgg16_bn, "
           "vgg19_bn, or a NATS cell string",
           placeholder("NAME"));
    option("weights", weights,
           "start from this CNN folder or checkpoint (a pruned one, say) instead of random weights",
           placeholder("PATH"));
    option("scratch", scratch,
           "with --weights: take its shape alone and begin with random weights, to see what its "
           "weights were worth");
    option("dtype", dtype, "type of activations; weights stay float32",
           one_of({"float32", "bfloat16"}));
    output.visit(option);
    images.visit(option);
    option("data", data, "a folder of class folders, an archive of one, or CIFAR's binary batches",
           placeholder("DIR") | required());
    option("limit", limit, "only the first N images, round-robin over the classes; 0 takes all",
           at_least(0));
    option("eval_data", eval_data, "images that are measured and do not train; default: --data",
           placeholder("DIR"));
    option("eval_split", eval_split,
           "the split of it; without that split in --data nothing is measured",
           placeholder("NAME"));
    option.group("Augmentation");
    option("crop_pad", crop_pad, "random crop after padding by this many zero pixels; 0 is off",
           in_range(0, 64));
    option("flip", flip, "mirror every second image, at random");
    option("rotation", rotation, "rotate by up to this many degrees, at random", in_range(0, 180));
    option.group("Training");
    option("epochs", epochs, "passes over the images", at_least(1) | required());
    option("batch_size", batch_size, "images per step", at_least(1));
    option("optimizer", optimizer, "how gradients change weights", one_of({"sgd", "adamw"}));
    option("lr", lr, "highest learning rate", at_least(0));
    option("lr_decay", lr_decay,
           "how the rate falls; step multiplies it by --gamma at --milestones",
           one_of({"cosine", "step", "linear", "constant"}));
    option("lr_floor", lr_floor, "rate that cosine and linear decay end at", at_least(0));
    option("lr_changes", lr_changes, "the rate changes with every step, or between epochs",
           one_of({"step", "epoch"}));
    option("milestones", milestones, "epochs for --lr-decay step", placeholder("N,..."));
    option("gamma", gamma, "factor of --lr-decay step", in_range(0, 1));
    option("warmup_epochs", warmup_epochs, "epochs over which the rate rises from 0", at_least(0));
    option("momentum", momentum, "of --optimizer sgd", in_range(0, 0.9999));
    option("nesterov", nesterov, "Nesterov's form of the momentum");
    option("weight_decay", weight_decay, "added to the gradient (sgd) or decoupled (adamw)",
           at_least(0));
    option("decay_norms", decay_norms,
           "with sgd: norms and biases decay as well, as in torch; adamw never decays them");
    option("beta1", beta1, "AdamW's average of gradients", in_range(0, 1));
    option("beta2", beta2, "AdamW's average of squared gradients", in_range(0, 1));
    option("eps", eps, "AdamW's smallest divisor", at_least(0));
    option("label_smoothing", label_smoothing, "share of the target spread over all classes",
           in_range(0, 0.9));
    option("ema", ema, "above 0: keep an average of the weights with this factor per step",
           in_range(0, 0.99999));
    option("clip", clip, "largest norm of all gradients together; 0 is off", at_least(0));
    option("keep", keep, "the weights of the last epoch, or of the lowest measured loss",
           one_of({"last", "best"}));
    option("eval_every", eval_every, "epochs between measurements; 0 measures at the end",
           at_least(0));
    option("eval_batch_size", eval_batch_size, "images per forward pass of a measurement",
           at_least(1));
    option("checkpoint_every", checkpoint_every, "epochs between checkpoints", at_least(1));
    option("cuda_graph", cuda_graph,
           "on CUDA: record a step once and replay it; auto does where that is possible",
           one_of({"auto", "off"}));
    cost.visit(option);
  }
};

std::vector<std::int64_t> milestones_of(const TrainClassifierOptions& o) {
  std::vector<std::int64_t> epochs;
  for (const std::string& word : o.milestones) {
    std::int64_t epoch = 0;
    detail::parse_value("--milestones", word, at_least(1), epoch);
    if (!epochs.empty() && epoch <= epochs.back()) {
      throw Error(ErrorKind::kUsage, "--milestones",
                  format("is not ascending: {} stands after {}", epoch, epochs.back()));
    }
    epochs.push_back(epoch);
  }
  if (o.lr_decay == "step" && epochs.empty()) {
    throw Error(ErrorKind::kUsage, "--milestones", "is needed by --lr-decay step")
        .hint("--milestones 100,150");
  }
  return epochs;
}

ClassifierOptions training_options(const TrainClassifierOptions& o, std::int64_t seed) {
  ClassifierOptions t;
  t.epochs = o.epochs;
  t.batch_size = o.batch_size;
  if (o.optimizer == "sgd")
    t.optimizer =
        SgdOptions{o.momentum, o.nesterov && o.momentum > 0, o.weight_decay, o.decay_norms};
  else
    t.optimizer = AdamWOptions{o.beta1, o.beta2, o.eps, o.weight_decay};
  t.lr = o.lr;
  t.decay = o.lr_decay == "step" ? LrDecay::kMilestones : parse_lr_decay(o.lr_decay);
  t.floor = o.lr_floor;
  t.milestones = milestones_of(o);
  t.gamma = o.gamma;
  t.per_epoch = o.lr_changes == "epoch";
  t.warmup_epochs = o.warmup_epochs;
  t.label_smoothing = o.label_smoothing;
  t.clip = o.clip;
  t.ema = o.ema;
  t.augment = {o.crop_pad, o.flip, o.rotation};
  t.type = o.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  t.capture = o.cuda_graph == "auto";
  t.seed = static_cast<std::uint64_t>(seed);
  t.checkpoint_epochs = o.checkpoint_every;
  t.evaluate_epochs = o.eval_every;
  t.keep_best = o.keep == "best";
  return t;
}

/// Random weights for as many classes as there are, or the given ones.
Cnn start_net(const TrainClassifierOptions& o, const ImageSet& images, std::int64_t seed) {
  if (!o.weights.empty()) {
    const Cnn given = load_cnn(o.weights, o.arch, o.images);
    return o.scratch ? Cnn::make(given.config(), static_cast<std::uint64_t>(seed)) : given;
  }
  CnnConfig config = cnn_config(o.arch, static_cast<std::int64_t>(images.classes.size()));
  set_normalisation(o.images, config);
  return Cnn::make(config, static_cast<std::uint64_t>(seed));
}

/// Channels that images must have; known before they are read.
std::int64_t wanted_channels(const TrainClassifierOptions& o) {
  if (o.weights.empty()) return cnn_config(o.arch, 2).in_channels;
  return Cnn::load(o.weights, o.arch).config().in_channels;
}

/// nullopt when --data has no split to measure and --eval-data was not asked for.
std::optional<ImageSet> held_out_images(const TrainClassifierOptions& o, const ImageSet& training,
                                        std::int64_t channels, Reporter& reporter) {
  const bool here = std::ranges::find(training.splits, o.eval_split) != training.splits.end();
  if (o.eval_data.empty() && (!here || training.split == o.eval_split)) return std::nullopt;
  ImageOptions options = o.images;
  options.split = o.eval_data.empty() ? o.eval_split : std::string();
  ImageSet set = load_images(o.eval_data.empty() ? o.data : o.eval_data, options, channels, 0,
                             o.eval_split, reporter);
  if (set.classes != training.classes) {
    throw Error(ErrorKind::kInput, o.eval_data.empty() ? o.data : o.eval_data,
                format("its {} classes are not the {} of the training images", set.classes.size(),
                       training.classes.size()))
        .hint("both need the same class folders");
  }
  return set;
}

std::string result_json(const TrainClassifierOptions& o, const Cnn& net, const ImageSet& images,
                        const std::optional<Accuracy>& accuracy, const TrainResult& r,
                        double seconds) {
  Json json;
  json["schema"] = "espalier.train/1";
  json["kind"] = "classifier";
  json["arch"] = net.config().arch;
  json["blocks"] = stage_counts_text(net.config());
  json["data"] = {{"path", o.data},
                  {"split", images.split},
                  {"images", images.size()},
                  {"classes", images.classes.size()},
                  {"broken", images.broken.size()}};
  json["steps"] = r.steps;
  json["resumed_from"] = r.resumed_from;
  json["loss_first"] = r.losses.empty() ? 0 : r.losses.front();
  json["loss_last"] = r.losses.empty() ? 0 : r.losses.back();
  json["images"] = r.tokens;
  json["tokens"] = r.tokens;
  json["tokens_per_second"] = r.seconds > 0 ? static_cast<double>(r.tokens) / r.seconds : 0.0;
  json["peak_rss_bytes"] = peak_rss().count;
  json["peak_device_bytes"] = peak_device_bytes(net.device());
  json["trainable_parameters"] = net.parameter_count();
  json["training_seconds"] = r.seconds;
  json["seconds"] = seconds;
  if (accuracy) {
    json["accuracy"] = accuracy->accuracy;
    json["accuracy_stderr"] = accuracy->accuracy_stderr();
    json["top5"] = accuracy->top5;
    json["eval_loss"] = accuracy->loss;
    json["eval_n"] = accuracy->n;
  }
  json["out"] = o.output.out;
  return dump_json(json);
}

std::string result_text(const TrainClassifierOptions& o, const Cnn& net,
                        const std::optional<Accuracy>& accuracy, const TrainResult& r) {
  std::string text;
  if (accuracy) {
    text += format("accuracy {:.4f} ± {:.4f} on {} images, top-5 {:.4f}, loss {:.4f}\n",
                   accuracy->accuracy, accuracy->accuracy_stderr(), format_count(accuracy->n),
                   accuracy->top5, accuracy->loss);
  }
  text += format("loss {:.4f} -> {:.4f} in {} steps, {:.0f} images/s\n", r.losses.front(),
                 r.losses.back(), r.steps, static_cast<double>(r.tokens) / r.seconds);
  text += format("{} {}: {} parameters in {}, report in {}/run/report.html\n", net.config().arch,
                 stage_counts_text(net.config()), format_count(net.parameter_count()), o.output.out,
                 o.output.out);
  // The cells of a NATS net cannot be left out.
  const bool prunable = net.config().family != CnnFamily::kNatsCell;
  return text + format("Next: espalier {} {}{} --data {} --out OUT\n",
                       prunable ? "prune" : "redundancy", o.output.out,
                       prunable ? " --method redtest --keep-layers N" : "", o.data);
}

void check_options(const TrainClassifierOptions& o) {
  if (o.arch.empty() && o.weights.empty()) {
    throw Error(ErrorKind::kUsage, "--arch", "or --weights is needed").hint("--arch resnet20");
  }
  if (o.scratch && o.weights.empty()) {
    throw Error(ErrorKind::kUsage, "--scratch", "needs --weights: the net whose shape is taken")
        .hint("--weights PRUNED --scratch");
  }
  milestones_of(o);
}

RunFacts run_facts(const Context& context, at::Device device) {
  RunFacts facts;
  facts.verb = "train classifier";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = static_cast<std::uint64_t>(context.common.seed);
  facts.device = device.str();
  facts.threads = at::get_num_threads();
  return facts;
}

/// What a resumed run must have in common with the first.
std::vector<std::pair<std::string, std::string>> must_match(const TrainClassifierOptions& o,
                                                            const Cnn& net, const ImageSet& images,
                                                            std::int64_t seed) {
  return {{"images", images_sha256(images)},
          {"architecture", net.config().arch + " " + stage_counts_text(net.config())},
          {"weights", o.weights + (o.scratch ? " (its shape)" : "")},
          {"batch size", format("{}", o.batch_size)},
          {"epochs", format("{}", o.epochs)},
          {"optimizer", o.optimizer},
          {"ema", format("{}", o.ema)},
          {"keep", o.keep},
          {"seed", format("{}", seed)},
          {"dtype", o.dtype}};
}

void print_estimate(Context& context, const TrainClassifierOptions& o, const Cnn& net,
                    const ImageSet& images, const ClassifierOptions& options) {
  const ClassifierEstimate e = estimate_classifier(net, images, options, context.reporter);
  const bool on_cpu = net.device().is_cpu();
  CostEstimate cost;
  // Images stay on the host too; what reading them took is in the process already.
  cost.peak_memory = {peak_rss().count + (on_cpu ? e.weight_bytes + e.activation_bytes : 0)};
  cost.peak_device_memory = {on_cpu ? 0 : e.peak_bytes()};
  cost.disk = {e.checkpoint_bytes + net.parameter_count() * 4};
  cost.seconds = e.seconds;
  cost.note = format("{} {}, {} parameters, {} steps on {} images", net.config().arch,
                     stage_counts_text(net.config()), format_count(net.parameter_count()),
                     format_count(e.steps), format_count(images.size()));
  print_cost(context, "train", cost, o.output.out);
}

/// Writes the folder and reads it back: what was written is what is measured.
Cnn save_net(const Cnn& net, RunFolder& run) {
  net.to(at::kCPU, at::kFloat).save(run.folder());
  return Cnn::load(run.folder()).to(net.device(), at::kFloat, at::MemoryFormat::ChannelsLast);
}

int run_train_classifier(const TrainClassifierOptions& o, Context& context) {
  const Stopwatch watch;
  check_options(o);
  std::vector<std::filesystem::path> inputs{o.data};
  if (!o.weights.empty()) inputs.emplace_back(o.weights);
  if (!o.eval_data.empty()) inputs.emplace_back(o.eval_data);
  check_output_apart(o.output.out, inputs);
  const at::Device device = ModelOptions::device(context);
  const std::int64_t channels = wanted_channels(o);
  std::optional<RunFolder> run;
  if (!o.cost.dry_run)
    run = RunFolder::create(o.output.out, o.output.policy(), run_facts(context, device));
  Reporter& reporter = run ? run->log_to_file(context.reporter) : context.reporter;
  const ImageSet images = load_images(o.data, o.images, channels, o.limit, "train", reporter);
  const std::optional<ImageSet> held_out = held_out_images(o, images, channels, reporter);
  Cnn net = start_net(o, images, context.common.seed).to(device, at::kFloat);
  net.set_images(images.pixels.size(2), net.config().mean, net.config().std, images.classes);
  ClassifierOptions options = training_options(o, context.common.seed);
  if (!run) {
    print_estimate(context, o, net, images, options);
    return 0;
  }
  for (const auto& input : inputs) run->add_input(input, "");
  options.must_match = must_match(o, net, images, context.common.seed);
  options.may_change = {{"lr", format("{}", o.lr)}, {"weight decay", format("{}", o.weight_decay)}};
  const auto measure = [&](const Cnn& one) {
    return measure_accuracy(one, *held_out, o.eval_batch_size, options.type, silent_reporter(),
                            context.stop);
  };
  if (held_out) {
    options.evaluate = [&](const Cnn& one) {
      const Accuracy found = measure(one);
      reporter.info(format("accuracy {:.4f}, loss {:.4f}", found.accuracy, found.loss));
      return Evaluation{found.loss,
                        {{"eval_accuracy", found.accuracy},
                         {"eval_top5", found.top5},
                         {"eval_loss", found.loss}}};
    };
  }
  const TrainResult trained = train_classifier(net, images, options, *run, reporter, context.stop);
  const Cnn saved = save_net(net, *run);
  std::optional<Accuracy> accuracy;
  if (held_out) accuracy = measure(saved);
  run->keep();
  run_report({load_run(run->folder())}, {}, format("Training {}", net.config().arch))
      .write(run->run_dir() / "report.html");
  std::error_code ignored;
  std::filesystem::remove_all(run->run_dir() / "checkpoints",
                              ignored);  // the finished net holds what they were for
  run->publish();
  context.print_result(result_text(o, net, accuracy, trained),
                       result_json(o, net, images, accuracy, trained, watch.seconds()));
  return 0;
}

}  // namespace

Command train_classifier_command() {
  return make_command<TrainClassifierOptions>(
      "train classifier", "Train", "an image classifier: ResNets, VGG, NATS cells",
      run_train_classifier,
      {"espalier train classifier --data cifar10.tar.xz --arch resnet56 --epochs 200 --out "
       "resnet56",
       "espalier train classifier --data DIR --weights PRUNED --epochs 20 --lr 0.01 --out HEALED",
       "espalier train classifier --data DIR --arch resnet20 --epochs 30 --device cuda --dtype "
       "bfloat16 --out OUT --json"});
}

}  // namespace espalier::cli
