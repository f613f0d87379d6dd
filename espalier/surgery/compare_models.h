// How far a converted model's logits are from its source's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

struct ModelComparison {
  double max_abs_diff = 0;    // over all logits of the prompt
  double relative_error = 0;  // of the logits less their mean at each position, Frobenius norms
  double top1_agreement = 0;  // share of positions where both rank the same token first
  std::int64_t tokens = 0;
};

/// Logits of a short prompt (a sentence when `source` has a tokenizer that knows it, seeded ids
/// otherwise) by `source` with the layers `kept` (empty: all) and by `output`, both streamed in
/// float32. Throws Error(kInternal) when the relative error is above `limit`: the output does not
/// compute what the source computes.
ModelComparison compare_models(const std::filesystem::path& source,
                               const std::vector<std::int64_t>& kept,
                               const std::filesystem::path& output, double limit,
                               Reporter& reporter);

/// The limit when matrices stored as `stored` are written as `written`: what rounding explains, far
/// below what a wrong row order or a lost tensor does (those give 1 and more).
double comparison_limit(GgufType stored, GgufType written);

}  // namespace espalier
