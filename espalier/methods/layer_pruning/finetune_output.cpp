// Rounding to the stored dtypes and the check by reloading.
#include "espalier/methods/layer_pruning/finetune_output.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/hf_folder.h"
#include "espalier/methods/layer_pruning/finetune.h"
#include "espalier/surgery/delta.h"
#include "espalier/surgery/remap_adapter.h"
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

void write_tuned_delta(const std::filesystem::path& source,
                       const std::map<std::string, at::Tensor>& tensors,
                       const std::filesystem::path& path) {
  DeltaInfo info;
  info.source = source.string();
  if (const std::optional<PruningRecord> record = read_pruning_record(source)) {
    info.layers_before = record->layers_before;
    info.kept = record->kept;
  } else {
    info.layers_before = DecoderCheckpoint::open(source)->config().num_layers;
  }
  write_delta(path, tensors, info);
  const DeltaFile written = DeltaFile::open(path);
  for (const StoredTensor& stored : written.tensors) {
    const auto found = tensors.find(stored.name);
    if (found == tensors.end() || !std::ranges::equal(stored.data, tensor_bytes(found->second)))
      throw Error(ErrorKind::kInternal, path.string(), stored.name + " was not written as trained");
  }
  ESPALIER_ASSERT(written.tensors.size() == tensors.size());
}

void verify_tuned(const std::filesystem::path& folder, const Decoder& reloaded,
                  const TrainingRows& probe, double expected, Reporter& reporter) {
  const auto phase = reporter.phase("checking what was written", 1, "models");
  const double found = rows_loss(reloaded, probe);
  const double tolerance = reloaded.device().is_cpu() ? 0 : 1e-5 * std::abs(expected);
  if (!(std::abs(found - expected) <= tolerance)) {
    throw Error(ErrorKind::kInternal, folder.string(),
                format("the written model's loss on a probe batch is {}, the trained model's is {}",
                       found, expected));
  }
  phase->update(1);
}

void verify_finetuned(const std::filesystem::path& folder, const Decoder& model,
                      const TrainingRows& probe, double expected, Reporter& reporter) {
  std::optional<Decoder> reloaded;
  try {
    reloaded = Decoder::load(folder, model.type(), model.device(), Residency::kStreamed);
  } catch (Error& error) {
    throw std::move(error).during("re-opening the finetuned model");
  }
  verify_tuned(folder, *reloaded, probe, expected, reporter);
}

}  // namespace espalier::layer_pruning
