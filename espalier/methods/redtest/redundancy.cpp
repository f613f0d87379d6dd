// See redundancy.h.
#include "espalier/methods/redtest/redundancy.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/eval/hidden_similarity.h"
#include "espalier/similarity/layer_choice.h"

namespace espalier::redtest {
namespace {

void add_to(Msrs& sum, const Msrs& batch) {
  sum.value += batch.value;
  sum.normalised += batch.normalised;
  sum.share.resize(batch.share.size(), 0);
  for (std::size_t i = 0; i < batch.share.size(); ++i) sum.share[i] += batch.share[i];
}

void divide(Msrs& sum, double count) {
  sum.value /= count;
  sum.normalised /= count;
  for (double& share : sum.share) share /= count;
}

}  // namespace

Redundancy measure_redundancy(const Cnn& net, const ImageSample& images,
                              const RedundancyOptions& options, Reporter& reporter,
                              const StopToken& stop) {
  check_image_sample(net, images);
  const bool by_batch = options.average == CkaAverage::kRatio;
  Redundancy result;
  const HsicMatrix hsic = hidden_similarity(
      net, images, {.form = FeatureForm::kPooled, .estimator = options.estimator},
      [&](const at::Tensor& cka) {
        if (by_batch) add_to(result.msrs, msrs(cka, options.beta, options.tau));
      },
      reporter, stop);
  result.cka = by_batch ? hsic.cka_mean_of_ratios() : hsic.cka();
  if (by_batch) {
    divide(result.msrs, static_cast<double>(images.batches));
  } else {
    result.msrs = msrs(result.cka, options.beta, options.tau);
  }
  result.adjacent = adjacent_similarity(hsic.cka_mean_of_ratios());
  result.degenerate = hsic.degenerate_layers();
  const std::vector<HiddenLayer> layers = net.hidden_layers();
  for (const std::int64_t layer : result.degenerate) {
    reporter.warn(
        format("degenerate layer {} ({}): its features are constant on these images, CKA "
               "counts 0",
               layer, layers[static_cast<std::size_t>(layer)].name));
  }
  return result;
}

}  // namespace espalier::redtest
