// The smallest whole use of RedTest: how many pairs of a CNN's layers say the same, and which
// layers repeat the most.
//
//   score_redundancy CNN_FOLDER IMAGES [BATCHES] [BATCH_SIZE]
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>

#include "espalier/base/error.h"
#include "espalier/data/image_set.h"
#include "espalier/methods/redtest/redundancy.h"
#include "espalier/run/console_reporter.h"

namespace {

int score(const std::string& folder, const std::string& images, std::int64_t batches,
          std::int64_t batch_size) {
  using namespace espalier;
  const auto reporter = make_console_reporter(ProgressStyle::kPlain, LogLevel::kInfo);
  const Cnn net = Cnn::load(folder);

  // The first images, round-robin over the classes: the same call always measures the same ones.
  ImageSetOptions options;
  options.limit = batches * batch_size;
  options.channels = net.config().in_channels;
  const ImageSet set = load_image_set(images, options, *reporter);
  ImageSample sample;
  sample.pixels = set.pixels;
  sample.labels = set.labels;
  sample.batches = batches;
  sample.batch_size = batch_size;

  const redtest::Redundancy found = redtest::measure_redundancy(net, sample, {}, *reporter);
  std::cout << "MSRS " << found.msrs.value << ", " << found.msrs.normalised << " of all pairs\n";
  const std::vector<HiddenLayer> layers = net.hidden_layers();
  for (std::size_t i = 0; i < layers.size(); ++i)
    std::cout << layers[i].name << "  " << found.msrs.share[i] << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: score_redundancy CNN_FOLDER IMAGES [BATCHES] [BATCH_SIZE]\n";
    return 2;
  }
  try {
    return score(argv[1], argv[2], argc > 3 ? std::stoll(argv[3]) : 10,
                 argc > 4 ? std::stoll(argv[4]) : 256);
  } catch (const espalier::Error& error) {
    std::cerr << error.to_string() << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 70;
  }
}
