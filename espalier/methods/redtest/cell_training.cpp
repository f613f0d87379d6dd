// See cell_training.h.
#include "espalier/methods/redtest/cell_training.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/eval/accuracy.h"
#include "espalier/methods/redtest/cell_space.h"
#include "espalier/tensor/own_stream.h"

namespace espalier::redtest {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostBatches = 10;   // of MSRS (spec 2.8)
constexpr std::int64_t kSmallestBatch = 4;  // that unbiased CKA is defined for

ImageSet rows_of(const ImageSet& images, std::int64_t first, std::int64_t count) {
  ImageSet part = images;
  part.pixels = images.pixels.narrow(0, first, count);
  part.labels = images.labels.narrow(0, first, count);
  part.files.assign(images.files.begin() + first, images.files.begin() + first + count);
  return part;
}

std::int64_t batches_of(const CellTraining& training, const ImageSet& images) {
  if (training.msrs_batches > 0) return training.msrs_batches;
  return std::min(kMostBatches, images.size() / training.msrs_batch_size);
}

Cnn make_network(const NatsCell& cell, const SearchImages& images, const CellTraining& training) {
  const std::vector<std::string>& classes = images.training.classes;
  CnnConfig config = cnn_config(nats_cell_text(cell), static_cast<std::int64_t>(classes.size()));
  config.in_channels = images.training.channels();
  config.image_size = images.training.pixels.size(2);
  config.classes = classes;
  if (!training.mean.empty()) config.mean = training.mean;
  if (!training.std.empty()) config.std = training.std;
  return Cnn::make(config, training.classifier.seed).to(training.device, at::kFloat);
}

void train_network(Cnn& net, const std::string& id, const SearchImages& images,
                   const CellTraining& training, Reporter& reporter, const StopToken& stop) {
  RunFacts facts;
  facts.verb = "search";
  facts.seed = training.classifier.seed;
  facts.device = training.device.str();
  RunFolder run = RunFolder::create(training.work / id, OutputPolicy::kResume, facts);
  train_classifier(net, images.training, training.classifier, run, reporter, stop);
}

}  // namespace

ClassifierOptions short_training(std::int64_t epochs) {
  ClassifierOptions options;
  options.epochs = epochs;
  options.batch_size = 256;
  options.optimizer = SgdOptions{.momentum = 0.9, .nesterov = true, .weight_decay = 5e-4};
  options.lr = 0.1;
  options.decay = LrDecay::kCosine;
  options.augment = {.crop_pad = 4, .flip = true, .rotation = 0};
  return options;
}

SearchImages split_for_search(const ImageSet& images, std::int64_t held_out,
                              std::optional<ImageSet> test) {
  const std::int64_t count = held_out > 0 ? held_out : images.size() / 10;
  const auto classes = static_cast<std::int64_t>(images.classes.size());
  if (count < classes || images.size() - count < classes) {
    throw Error(ErrorKind::kUsage, "--held-out",
                format("of {} images {} would be held out and {} left to train, but both need at "
                       "least one of each of the {} classes",
                       images.size(), count, images.size() - count, classes))
        .hint(format("--held-out between {} and {}, or a larger --limit", classes,
                     std::max(classes, images.size() - classes)));
  }
  SearchImages split;
  split.training = rows_of(images, 0, images.size() - count);
  split.held_out = rows_of(images, images.size() - count, count);
  split.test = std::move(test);
  return split;
}

void check_cell_training(const CellTraining& training, const SearchImages& images) {
  const std::int64_t held_out = images.held_out.size(), size = training.msrs_batch_size;
  if (size < kSmallestBatch) {
    throw Error(ErrorKind::kUsage, "--msrs-batch-size",
                format("is {}, but CKA needs at least {} images", size, kSmallestBatch));
  }
  const std::int64_t batches = std::max<std::int64_t>(1, training.msrs_batches);
  if (batches * size <= held_out) return;
  Error error(
      ErrorKind::kUsage, "--msrs-batch-size",
      format("MSRS needs {} x {} images, but only {} are held out", batches, size, held_out));
  throw std::move(error).hint(format("--held-out {}, or --msrs-batch-size {}", batches * size,
                                     std::max(kSmallestBatch, held_out / batches)));
}

CellResult train_cell(const NatsCell& cell, const SearchImages& images,
                      const CellTraining& training, const fs::path& weights, Reporter& reporter,
                      const StopToken& stop) {
  const std::string id = cell_id(cell);
  const OwnStream stream(training.device);  // cells that train at the same time overlap on a GPU
  Cnn net = make_network(cell, images, training);
  train_network(net, id, images, training, reporter, stop);

  const auto measure = [&](const ImageSet& set) {
    return measure_accuracy(net, set, training.eval_batch_size, training.classifier.type, reporter,
                            stop);
  };
  CellResult result;
  const Accuracy accuracy = measure(images.held_out);
  result.accuracy = accuracy.accuracy;
  result.accuracy_stderr = accuracy.accuracy_stderr();
  result.loss = accuracy.loss;
  result.images = accuracy.n;
  if (images.test) result.test_accuracy = measure(*images.test).accuracy;

  ImageSample sample;
  sample.pixels = images.held_out.pixels;
  sample.labels = images.held_out.labels;
  sample.batches = batches_of(training, images.held_out);
  sample.batch_size = training.msrs_batch_size;
  sample.type = training.classifier.type;
  RedundancyOptions options;
  options.beta = training.beta;
  options.tau = training.tau;
  // Constant layers are counted here instead of warned of for each of many cells.
  const Redundancy redundancy = measure_redundancy(net, sample, options, silent_reporter(), stop);
  result.msrs = redundancy.msrs.value;
  result.msrs_normalised = redundancy.msrs.normalised;
  result.degenerate = static_cast<std::int64_t>(redundancy.degenerate.size());
  result.parameters = net.parameter_count();
  if (!weights.empty()) {
    fs::remove_all(weights);
    net.to(at::kCPU, at::kFloat).save(weights);
  }
  fs::remove_all(training.work / (id + ".partial"));
  return result;
}

}  // namespace espalier::redtest
