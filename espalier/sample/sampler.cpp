// Choosing one token from a row of logits.
#include "espalier/sample/sampler.h"

#include <algorithm>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {
namespace {

struct Candidate {
  float score = 0;  // logit / temperature
  TokenId id = 0;
};

/// Higher score first, then the lower id: one total order, so that results do not depend on the
/// sort's algorithm.
bool better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

TokenId greedy(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<TokenId>(best);
}

/// Keeps the k best and whatever ties with the k-th, as a threshold on the scores does.
void keep_top_k(std::vector<Candidate>& candidates, std::int64_t k) {
  if (k <= 0 || k >= static_cast<std::int64_t>(candidates.size())) return;
  std::nth_element(candidates.begin(), candidates.begin() + (k - 1), candidates.end(), better);
  const float threshold = candidates[static_cast<std::size_t>(k - 1)].score;
  std::erase_if(candidates, [&](const Candidate& c) { return c.score < threshold; });
}

std::vector<double> weights_of(const std::vector<Candidate>& candidates, double& total) {
  float top = candidates.front().score;
  for (const Candidate& c : candidates) top = std::max(top, c.score);
  std::vector<double> weights;
  weights.reserve(candidates.size());
  total = 0;
  for (const Candidate& c : candidates) {
    weights.push_back(std::exp(static_cast<double>(c.score) - top));
    total += weights.back();
  }
  return weights;
}

/// Keeps the best tokens up to and including the one with which their probability reaches p; at
/// least one.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  double total = 0;
  (void)weights_of(candidates, total);
  float top = candidates.front().score;
  for (const Candidate& c : candidates) top = std::max(top, c.score);
  // A heap gives the best ones in order without sorting the whole vocabulary.
  const auto worse = [](const Candidate& a, const Candidate& b) { return better(b, a); };
  std::make_heap(candidates.begin(), candidates.end(), worse);
  std::vector<Candidate> kept;
  double before = 0;
  for (auto end = candidates.end(); end != candidates.begin() && (kept.empty() || before < p);
       --end) {
    std::pop_heap(candidates.begin(), end, worse);
    kept.push_back(*(end - 1));
    before += std::exp(static_cast<double>(kept.back().score) - top) / total;
  }
  candidates = std::move(kept);
}

}  // namespace

TokenId sample_token(const at::Tensor& logits, const SamplingOptions& options,
                     RandomStream& random) {
  ESPALIER_ASSERT(logits.dim() == 1 && logits.numel() > 0);
  const at::Tensor row = logits.to(at::kCPU, at::kFloat).contiguous();
  const std::span<const float> values(row.const_data_ptr<float>(),
                                      static_cast<std::size_t>(row.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i]) || values[i] == std::numeric_limits<float>::infinity()) {
      throw Error(ErrorKind::kInput, "logits", format("the score of token {} is {}", i, values[i]))
          .hint("the weights are damaged or overflow in this type; try --dtype float32");
    }
  }
  if (options.temperature == 0) return greedy(values);
  std::vector<Candidate> candidates(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    candidates[i] = {static_cast<float>(values[i] / options.temperature), static_cast<TokenId>(i)};
  }
  keep_top_k(candidates, options.top_k);
  keep_top_p(candidates, options.top_p);
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  double total = 0;
  const std::vector<double> weights = weights_of(candidates, total);
  double mark = random.uniform() * total;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    mark -= weights[i];
    if (mark < 0 && weights[i] > 0) return candidates[i].id;
  }
  return std::min_element(candidates.begin(), candidates.end(), better)
      ->id;  // rounding ate the last sliver
}

}  // namespace espalier
