// The smallest whole use of SGLP: segment a CNN's layers, keep the most important of each segment,
// write the smaller network as a folder.
//
//   segment_and_prune CNN_FOLDER IMAGES KEEP_LAYERS OUT [BATCHES] [BATCH_SIZE]
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>

#include "espalier/base/error.h"
#include "espalier/data/image_set.h"
#include "espalier/methods/sglp/prune.h"
#include "espalier/run/console_reporter.h"
#include "espalier/run/run_folder.h"

namespace {

int prune(const std::string& folder, const std::string& images, std::int64_t keep,
          const std::string& out, std::int64_t batches, std::int64_t batch_size) {
  using namespace espalier;
  const auto reporter = make_console_reporter(ProgressStyle::kPlain, LogLevel::kInfo);
  const Cnn net = Cnn::load(folder);
  ImageSetOptions options;
  options.limit = batches * batch_size;
  options.channels = net.config().in_channels;
  const ImageSet set = load_image_set(images, options, *reporter);
  ImageSample sample;
  sample.pixels = set.pixels;
  sample.labels = set.labels;
  sample.batches = batches;
  sample.batch_size = batch_size;

  sglp::SglpOptions sglp_options;
  sglp_options.keep = keep;
  const sglp::SglpResult result = sglp::plan_pruning(net, sample, sglp_options, *reporter);
  for (std::size_t s = 0; s < result.segments.budgets.size(); ++s)
    std::cout << "segment from layer " << result.segments.segmentation.starts[s] << " keeps "
              << result.segments.budgets[s] << "\n";

  // Written beside, read back and compared, then renamed: OUT is whole or absent.
  RunFacts facts;
  facts.verb = "example";
  auto run = RunFolder::create(out, OutputPolicy::kFresh, facts);
  const PrunedCnn pruned = write_planned_cnn(net, result.plan, folder, "", run, *reporter);
  run.publish();
  std::cout << pruned.parameters_after << " of " << pruned.parameters_before
            << " parameters, wrote " << out << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: segment_and_prune CNN_FOLDER IMAGES KEEP_LAYERS OUT [BATCHES] "
                 "[BATCH_SIZE]\n";
    return 2;
  }
  try {
    return prune(argv[1], argv[2], std::stoll(argv[3]), argv[4],
                 argc > 5 ? std::stoll(argv[5]) : 10, argc > 6 ? std::stoll(argv[6]) : 256);
  } catch (const espalier::Error& error) {
    std::cerr << error.to_string() << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 70;
  }
}
