// `espalier redundancy` on a CNN: MSRS, the matrix, its segments; and what measuring a CNN costs.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/eval/forward_cost.h"
#include "espalier/methods/redtest/redundancy_report.h"
#include "espalier/run/run_folder.h"

#include "apps/cli/cnn_verbs.h"
#include "apps/cli/cost_options.h"

namespace espalier::cli {
namespace {

redtest::RedundancyDocument measure(const CnnRun& run, const redtest::RedundancyOptions& options,
                                    const Cnn& net, Context& context, Reporter& reporter) {
  const ImageSample images = run.cnn.images(net, run.type, reporter);
  redtest::RedundancyDocument document;
  document.model = run.model;
  document.arch = net.config().arch;
  for (const HiddenLayer& layer : net.hidden_layers()) document.names.push_back(layer.name);
  document.options = options;
  document.data = run.cnn.data;
  document.data_sha256 = sample_sha256(images);
  document.batches = run.cnn.batches;
  document.batch_size = run.cnn.batch_size;
  document.seed = static_cast<std::uint64_t>(context.common.seed);
  document.command_line = context.command_line;
  document.redundancy = redtest::measure_redundancy(net, images, options, reporter, context.stop);
  document.segments = segment_layers(document.redundancy.cka, run.segments);
  return document;
}

}  // namespace

void print_cnn_cost(const CnnRun& run, const Cnn& net, bool flattened, bool gradients,
                    const std::string& verb, const std::string& note, Context& context) {
  const c10::NoGradGuard no_grad;
  const CnnConfig& config = net.config();
  const at::Tensor image = at::zeros({1, config.in_channels, config.image_size, config.image_size},
                                     at::TensorOptions().device(net.device()).dtype(run.type));
  std::int64_t values = 0, widest = 0, columns = 0;  // of one image
  const auto look = [&](std::int64_t, const at::Tensor& feature) {
    values += feature.numel();
    widest = std::max(widest, feature.numel());
    columns += flattened ? feature.numel() : feature.size(1);
  };
  net.forward_hidden(image, NormMode::kRunning, look);  // the first call also warms up
  const Stopwatch watch;
  net.forward(image, NormMode::kRunning);
  const double forward = watch.seconds();
  const auto batch = static_cast<double>(run.cnn.batch_size);
  const double count = batch * static_cast<double>(run.cnn.batches);
  CostEstimate cost;
  // A backward keeps about six tensors per layer of 64 images; a forward four of the widest.
  const std::int64_t activations =
      std::max(4 * widest * run.cnn.batch_size, gradients ? 6 * values * 64 : 0) * 4;
  cost.peak_memory = {process_bytes() + 2 * 4 * net.parameter_count() + activations};
  cost.disk = {4 * net.parameter_count()};
  // Products of float64 Grams run at about 2e10 operations a second.
  cost.seconds = count * forward * (gradients ? 4 : 1) + static_cast<double>(run.cnn.batches) * 2 *
                                                             batch * batch *
                                                             static_cast<double>(columns) / 2e10;
  cost.note = note;
  print_cost(context, verb, cost, run.output.out);
}

int run_cnn_redundancy(const CnnRun& run, const redtest::RedundancyOptions& options,
                       Context& context) {
  const Stopwatch watch;
  const Cnn net = run.cnn.load(run.model, context);
  if (run.dry_run) {
    print_cnn_cost(run, net, /*flattened=*/false, /*gradients=*/false, "redundancy",
                   format("compare {} layers of {} on {} x {} images", net.hidden_layers().size(),
                          net.config().arch, run.cnn.batches, run.cnn.batch_size),
                   context);
    return 0;
  }
  if (run.output.out.empty()) {
    const auto document = measure(run, options, net, context, context.reporter);
    context.print_result(redtest::redundancy_table(document), redtest::redundancy_json(document));
    return 0;
  }
  check_output_apart(run.output.out, {run.model, run.cnn.data});
  RunFacts facts;
  facts.verb = "redundancy";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = static_cast<std::uint64_t>(context.common.seed);
  facts.device = context.common.device;
  facts.threads = at::get_num_threads();
  RunFolder folder = RunFolder::create(run.output.out, run.output.policy(), facts);
  Reporter& reporter = folder.log_to_file(context.reporter);
  folder.add_input(run.model, "");
  const auto document = measure(run, options, net, context, reporter);
  folder.add_fact("images_sha256", format("\"{}\"", document.data_sha256));
  redtest::write_redundancy(document, folder.folder());
  folder.publish();
  context.print_result(redtest::redundancy_table(document) +
                           format("\nmatrix and report in {} ({}); open {}/run/report.html\n",
                                  run.output.out, format_seconds(watch.seconds()), run.output.out),
                       redtest::redundancy_json(document));
  return 0;
}

}  // namespace espalier::cli
