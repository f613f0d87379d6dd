// What `redundancy` and `prune` do when their MODEL is a CNN. The verbs' own files parse and decide
// which kind of model it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "espalier/methods/redtest/redundancy.h"
#include "espalier/options/options.h"
#include "espalier/similarity/layer_choice.h"

#include "apps/cli/cnn_options.h"
#include "apps/cli/command.h"
#include "apps/cli/output_options.h"

namespace espalier::cli {

/// How CKA of a CNN is estimated and averaged.
struct CnnSimilarityOptions {
  std::string cka = "unbiased", cka_average = "hsic";

  template <class V>
  void visit(V&& option) {
    option("cka", cka, "estimator of CKA, for CNNs; decoders take unbiased",
           one_of({"unbiased", "biased"}));
    option("cka_average", cka_average,
           "for CNNs: one ratio of averaged HSIC, or the mean of the batches' ratios and scores",
           one_of({"hsic", "ratio"}));
  }

  bool is_default() const { return cka == "unbiased" && cka_average == "hsic"; }
};

/// Which layers of a CNN go.
struct CnnPruneOptions {
  std::optional<std::int64_t> keep_layers;
  std::string importance = "layer";
  bool allow_stage_head_drop = false;

  template <class V>
  void visit(V&& option) {
    option.group("CNNs");
    option("keep_layers", keep_layers,
           "how many layers of a CNN stay, the stem included (VGG: convolutions)", at_least(1));
    option("importance", importance,
           "sglp on a CNN: gradient of each layer, or of a network per combination of layers",
           one_of({"layer", "combination"}));
    option("allow_stage_head_drop", allow_stage_head_drop,
           "the first layer of a stage may go; the next one takes its place with random weights");
  }
};

/// The part of a verb's options that a CNN run needs.
struct CnnRun {
  std::string model;
  const CnnOptions& cnn;
  const OutputOptions& output;
  SegmentRule segments;
  at::ScalarType type = at::kFloat;
  bool dry_run = false;
};

int run_cnn_redundancy(const CnnRun& run, const redtest::RedundancyOptions& options,
                       Context& context);

/// `method`: auto (redtest), redtest, sglp, random or magnitude.
int run_cnn_prune(const CnnRun& run, const CnnPruneOptions& options, const std::string& method,
                  Context& context);

/// Prints what measuring `net` on its batches will cost. `gradients`: a backward pass as well.
void print_cnn_cost(const CnnRun& run, const Cnn& net, bool flattened, bool gradients,
                    const std::string& verb, const std::string& note, Context& context);

}  // namespace espalier::cli
