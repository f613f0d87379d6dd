// All leave-one-out perplexities of a decoder: the one sweep, or candidate by candidate as the
// tools of today do.
//   sweep_vs_naive MODEL TEXT SAMPLES LENGTH sweep|all|naive     -> one JSON line
// `all` is the sweep with every other score collected on the way. Run by sweep_vs_naive.sh, which
// adds the peer.
#include <cstdio>
#include <cstdlib>
#include <string>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/data/token_segments.h"
#include "espalier/methods/layer_pruning/scores.h"

namespace {

using namespace espalier;  // NOLINT: a program of one page

int run(const std::string& path, const std::string& text_path, std::int64_t samples,
        std::int64_t length, const std::string& mode) {
  const Decoder model = Decoder::load(path, at::kFloat, at::kCPU);
  const TokenText text =
      load_token_text(text_path, Tokenizer::load(path), silent_reporter(), true, samples * length);
  const at::Tensor ids = cut_segments(text, length, samples, samples);
  model.forward(ids.narrow(0, 0, 1));  // first-call costs are not the question
  Json json;
  const Stopwatch watch;
  if (mode == "naive") {
    std::int64_t forwards = 0;
    json["ppl"] = layer_pruning::leave_one_out_naive(model, ids, &forwards);
    json["block_forwards"] = forwards;
  } else {
    layer_pruning::ScoreOptions options;
    options.metrics =
        mode == "all" ? layer_pruning::metric_names() : std::vector<std::string>{"ppl"};
    options.remove = model.num_layers() / 4;
    const auto scores = layer_pruning::score_layers(model, ids, options, silent_reporter());
    for (const auto& [name, values] : scores.metrics) json[name] = values;
    json["dense_ppl"] = scores.dense_perplexity;
    json["block_forwards"] = scores.block_forwards;
  }
  json["seconds"] = watch.seconds();
  json["threads"] = at::get_num_threads();
  json["peak_rss_bytes"] = peak_rss().count;
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "sweep_vs_naive MODEL TEXT SAMPLES LENGTH sweep|all|naive\n");
    return 2;
  }
  try {
    return run(argv[1], argv[2], std::atoll(argv[3]), std::atoll(argv[4]), argv[5]);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
