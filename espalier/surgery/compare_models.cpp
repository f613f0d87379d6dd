// Logits before and after a conversion.
#include "espalier/surgery/compare_models.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/text/tokenizer.h"

namespace espalier {
namespace {

constexpr std::string_view kSentence =
    "The quick brown fox jumps over the lazy dog, and then it rests.";
constexpr std::size_t kTokens = 16;

at::Tensor prompt_ids(const std::filesystem::path& source, std::int64_t vocab) {
  std::vector<std::int64_t> ids;
  try {
    for (const TokenId id : Tokenizer::load(source).encode(kSentence)) ids.push_back(id);
  } catch (const Error&) {
    ids.clear();  // weights without a tokenizer are compared all the same
  }
  RandomStream stream(0, "compare_models");
  while (ids.size() < kTokens)
    ids.push_back(static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(vocab))));
  ids.resize(kTokens);
  for (std::int64_t& id : ids) id %= vocab;
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

at::Tensor logits_of(const Decoder& model, const at::Tensor& ids) {
  return model.forward(ids).squeeze(0).to(at::kDouble);
}

}  // namespace

ModelComparison compare_models(const std::filesystem::path& source,
                               const std::vector<std::int64_t>& kept,
                               const std::filesystem::path& output, double limit,
                               Reporter& reporter) {
  c10::NoGradGuard no_grad;
  const auto phase = reporter.phase("comparing logits with the source", 2, "models");
  at::Tensor before, ids;
  {
    const Decoder model = Decoder::load(source, at::kFloat, at::kCPU, Residency::kStreamed);
    ids = prompt_ids(source, model.config().vocab_size);
    before = logits_of(kept.empty() ? model : model.with_layers(kept), ids);
  }
  phase->update(1);
  const at::Tensor after =
      logits_of(Decoder::load(output, at::kFloat, at::kCPU, Residency::kStreamed), ids);
  phase->update(2);
  ModelComparison result;
  result.tokens = ids.size(1);
  if (before.sizes() == after.sizes()) {
    const at::Tensor diff = before - after;
    result.max_abs_diff = diff.abs().max().item<double>();
    // A common offset of a position's logits means nothing and would make unrelated outputs look
    // alike.
    const auto centred = [](const at::Tensor& x) { return x - x.mean(-1, true); };
    result.relative_error =
        centred(diff).norm().item<double>() / centred(before).norm().item<double>();
    result.top1_agreement =
        before.argmax(-1).eq(after.argmax(-1)).to(at::kDouble).mean().item<double>();
  }
  if (before.sizes() != after.sizes() || !(result.relative_error <= limit)) {
    throw Error(ErrorKind::kInternal, output.string(),
                format("its logits differ from the source's: largest difference {:.3g}, relative "
                       "error {:.3g}, at most {:.3g} is "
                       "rounding",
                       result.max_abs_diff, result.relative_error, limit))
        .hint(
            "the result was not published; please report this with the command and the model's "
            "config.json");
  }
  return result;
}

double comparison_limit(GgufType stored, GgufType written) {
  if (written == stored || written == GgufType::kF32) return 1e-4;
  switch (written) {
    case GgufType::kF16:
    case GgufType::kBF16:
      return 0.05;
    case GgufType::kQ8_0:
      return 0.2;
    default:
      return 0.85;  // four bits; measured 0.65 on tiny random models, 0.1 on real ones
  }
}

}  // namespace espalier
