// The plain greedy search on a model and a text, for sleb_taylor.py:
//   sleb_vs_plain MODEL TEXT SAMPLES LENGTH REMOVE     prints {"removed": [..], "perplexity": [..],
//   "block_forwards": N, "seconds": S}
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/prune_plan.h"
#include "espalier/methods/layer_pruning/sleb.h"

namespace {

int run(char** words) {
  using namespace espalier;
  layer_pruning::Calibration description;
  const at::Tensor ids = layer_pruning::load_calibration(words[1], words[2], std::atoll(words[3]),
                                                         std::atoll(words[4]), true, 42,
                                                         silent_reporter(), description);
  const Decoder model = Decoder::load(words[1], at::kFloat, at::kCPU);
  const Stopwatch watch;
  const layer_pruning::SlebResult result =
      layer_pruning::sleb_plain(model, ids, std::atoll(words[5]));
  std::string removed, perplexity;
  for (std::size_t i = 0; i < result.removed.size(); ++i) {
    removed += format("{}{}", i == 0 ? "" : ", ", result.removed[i]);
    perplexity += format("{}{}", i == 0 ? "" : ", ", result.perplexity[i]);
  }
  std::printf(
      "{\"removed\": [%s], \"perplexity\": [%s], \"block_forwards\": %lld, \"seconds\": %f}\n",
      removed.c_str(), perplexity.c_str(), static_cast<long long>(result.block_forwards),
      watch.seconds());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 6) {
    std::fputs("usage: sleb_vs_plain MODEL TEXT SAMPLES LENGTH REMOVE\n", stderr);
    return 2;
  }
  try {
    return run(words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
