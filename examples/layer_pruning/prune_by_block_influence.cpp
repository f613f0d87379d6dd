// The smallest whole use of the library: score a model's layers on a text, remove the least
// influential ones, write the shorter model as a new folder. It also serves as the program that
// tests/install builds against an installed espalier.
//
//   prune_by_block_influence MODEL_FOLDER TEXT_FILE LAYERS_TO_REMOVE OUT [TOKENS_PER_SEGMENT]
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/data/token_segments.h"
#include "espalier/methods/layer_pruning/scores.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/run/console_reporter.h"
#include "espalier/run/run_folder.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/text/tokenizer.h"

namespace {

int prune(const std::string& model_folder, const std::string& text_file, std::int64_t remove,
          const std::string& out, std::int64_t seq_len) {
  using namespace espalier;
  const auto reporter = make_console_reporter(ProgressStyle::kPlain, LogLevel::kInfo);

  // Up to ten segments of the text are enough to rank layers. Streamed: one layer's weights in
  // memory at a time.
  const auto tokenizer = Tokenizer::load(model_folder);
  const auto text = load_token_text(text_file, tokenizer, *reporter, true, 10 * seq_len);
  const auto ids = cut_segments(text, seq_len, 10);  // [segments, seq_len]
  const auto model = Decoder::load(model_folder, at::kFloat, at::kCPU, Residency::kStreamed);

  layer_pruning::ScoreOptions options;
  options.metrics = {"bi"};
  const auto scores = layer_pruning::score_layers(model, ids, options, *reporter);
  const auto removed = layer_pruning::select_layers(scores, "bi", remove);
  check_removal(removed, model.num_layers(), /*force=*/true);
  const auto kept = complement(removed, model.num_layers());

  // Written beside, checked against skipping the layers in memory, then renamed: OUT is whole or
  // absent.
  RunFacts facts;
  facts.verb = "example";
  auto run = RunFolder::create(out, OutputPolicy::kFresh, facts);
  prune_hf_folder(model_folder, kept, run.folder(), *reporter, never_stop());
  verify_pruned(model_folder, kept, run.folder(), *reporter);
  run.publish();

  std::cout << "removed layers " << layer_set_text(removed) << " of " << model.num_layers()
            << ", wrote " << out << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: prune_by_block_influence MODEL_FOLDER TEXT_FILE LAYERS_TO_REMOVE OUT "
                 "[TOKENS_PER_SEGMENT]\n";
    return 2;
  }
  try {
    return prune(argv[1], argv[2], std::stoll(argv[3]), argv[4],
                 argc > 5 ? std::stoll(argv[5]) : 128);
  } catch (const espalier::Error& error) {
    std::cerr << error.to_string() << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 70;
  }
}
