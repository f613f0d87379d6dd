// See hidden_similarity.h.
#include "espalier/eval/hidden_similarity.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {
namespace {

/// [n, width]; columns come in memory order, which no Gram depends on, so nothing is copied.
at::Tensor flattened(const at::Tensor& feature) {
  const bool channels_last =
      !feature.is_contiguous() && feature.is_contiguous(at::MemoryFormat::ChannelsLast);
  return (channels_last ? feature.permute({0, 2, 3, 1}) : feature).reshape({feature.size(0), -1});
}

}  // namespace

HsicMatrix hidden_similarity(const Cnn& net, const ImageSample& images,
                             const HiddenSimilarityOptions& options,
                             const std::function<void(const at::Tensor&)>& on_batch,
                             Reporter& reporter, const StopToken& stop) {
  const c10::NoGradGuard no_grad;
  const auto layers = static_cast<std::int64_t>(net.hidden_layers().size());
  HsicMatrix hsic(layers, options.estimator, options.chunk_values);
  const auto phase = reporter.phase("comparing layers", images.batches * layers, "layers");
  for (std::int64_t batch = 0; batch < images.batches; ++batch) {
    at::Tensor rows;
    net.forward_hidden(images.images(net, batch), NormMode::kRunning,
                       [&](std::int64_t layer, const at::Tensor& feature) {
                         if (stop.stop_requested()) throw Interrupted{};
                         const at::Tensor x = options.form == FeatureForm::kPooled
                                                  ? feature.to(at::kFloat).mean({2, 3})
                                                  : flattened(feature);
                         const at::Tensor row = HsicMatrix::centred_row(x, layer, options.estimator,
                                                                        options.chunk_values);
                         if (!rows.defined())
                           rows = at::empty({layers, row.size(0)}, row.options());
                         rows[layer].copy_(row);
                         phase->update(batch * layers + layer + 1);
                       });
    hsic.add_rows(rows, images.batch_size);
    if (on_batch) on_batch(hsic.last_batch_cka());
  }
  return hsic;
}

}  // namespace espalier
