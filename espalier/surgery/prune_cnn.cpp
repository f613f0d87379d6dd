// See prune_cnn.h.
#include "espalier/surgery/prune_cnn.h"

#include <algorithm>

#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::int64_t kCheckedImages = 2;

/// Both nets on the same noise, on the CPU, where equal weights give equal bits.
void check_same(const Cnn& in_memory, const std::filesystem::path& folder) {
  const c10::NoGradGuard no_grad;
  const Cnn loaded = Cnn::load(folder);
  const CnnConfig& config = in_memory.config();
  const at::Tensor images =
      at::randn({kCheckedImages, config.in_channels, config.image_size, config.image_size},
                make_generator(0, "prune_cnn.check", 0, 0, at::kCPU));
  const at::Tensor left = in_memory.forward(images, NormMode::kRunning),
                   right = loaded.forward(images, NormMode::kRunning);
  if (loaded.config() == config && left.equal(right)) return;
  throw Error(ErrorKind::kInternal, folder.string(),
              "the folder read back differs from the net it was written from");
}

}  // namespace

PrunedCnn write_pruned_cnn(const Cnn& source, const std::vector<std::int64_t>& kept_hidden,
                           const LayerDropOptions& options, const std::filesystem::path& folder,
                           Reporter& reporter) {
  const Cnn left = source.with_layers(kept_hidden, options, reporter).to(at::kCPU, at::kFloat);
  left.save(folder);
  check_same(left, folder);

  PrunedCnn pruned{.config = left.config(),
                   .kept = kept_hidden,
                   .removed = {},
                   .kept_names = {},
                   .removed_names = {},
                   .parameters_before = source.parameter_count(),
                   .parameters_after = left.parameter_count()};
  const std::vector<HiddenLayer> layers = source.hidden_layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    if (std::binary_search(kept_hidden.begin(), kept_hidden.end(), index)) {
      pruned.kept_names.push_back(layers[i].name);
    } else {
      pruned.removed.push_back(index);
      pruned.removed_names.push_back(layers[i].name);
    }
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    pruned.bytes += entry.is_regular_file() ? entry.file_size() : 0;
  return pruned;
}

}  // namespace espalier
