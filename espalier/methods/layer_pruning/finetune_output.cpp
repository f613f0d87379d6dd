// Rounding to the stored dtypes and the check by reloading.
#include "espalier/methods/layer_pruning/finetune_output.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/hf_folder.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {

std::map<std::string, at::Tensor> round_to_stored(const std::filesystem::path& source,
                                                  const std::map<std::string, at::Tensor>& trained,
                                                  Decoder& model) {
  std::map<std::string, at::Tensor> rounded;
  std::optional<HfFolder> folder;
  if (std::filesystem::is_directory(source)) folder = HfFolder::open(source);
  for (const auto& [name, master] : trained) {
    at::ScalarType type = at::kFloat;
    if (folder) {
      const StoredTensor* stored = folder->find(name);
      if (!stored) stored = folder->find("model.embed_tokens.weight");
      ESPALIER_ASSERT(stored != nullptr);
      type = to_scalar_type(stored->dtype);
    }
    rounded.emplace(name, master.detach().to(at::kCPU, type).contiguous());
  }
  const at::NoGradGuard no_grad;
  model.for_each_parameter([&](const std::string& name, at::Tensor& slot) {
    if (const auto found = rounded.find(name); found != rounded.end()) slot.copy_(found->second);
  });
  return rounded;
}

double probe_loss(const Decoder& model, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  const at::Tensor on_device = ids.to(model.device());
  const std::int64_t tokens = ids.size(1);
  at::Tensor h =
      model.run_layers(model.embed(on_device), 0, model.num_layers(), model.context(tokens));
  h = model.final_norm(h.narrow(1, 0, tokens - 1));
  const at::Tensor nll = linear_nll(h.reshape({-1, h.size(-1)}), model.head_weight(),
                                    on_device.narrow(1, 1, tokens - 1).reshape({-1}));
  return nll.to(at::kDouble).mean().item<double>();
}

void verify_finetuned(const std::filesystem::path& folder, const Decoder& model,
                      const at::Tensor& ids, double expected, Reporter& reporter) {
  const auto phase = reporter.phase("checking the written model", 1, "models");
  double found = 0;
  try {
    found =
        probe_loss(Decoder::load(folder, model.type(), model.device(), Residency::kStreamed), ids);
  } catch (Error& error) {
    throw std::move(error).during("re-opening the finetuned model");
  }
  const double tolerance = model.device().is_cpu() ? 0 : 1e-5 * std::abs(expected);
  if (!(std::abs(found - expected) <= tolerance)) {
    throw Error(ErrorKind::kInternal, folder.string(),
                format("the written model's loss on a probe batch is {}, the trained model's is {}",
                       found, expected));
  }
  phase->update(1);
}

}  // namespace espalier::layer_pruning
