// Kept tensors from file to file: a Hugging Face folder or a GGUF file without some of its layers.
#include "espalier/surgery/prune_files.h"

#include <algorithm>
#include <optional>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/companions.h"
#include "espalier/surgery/kept_layers_internal.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_gguf_metadata_internal.h"

namespace espalier {
namespace {

using Layers = std::vector<std::int64_t>;

/// Number of layers by the tensor names. Throws Error(kInput) when there are none or some are
/// missing in between.
template <class Tensors>
std::int64_t count_layers(const Tensors& tensors, std::string_view prefix,
                          const std::filesystem::path& source) {
  std::set<std::int64_t> layers;
  for (const auto& tensor : tensors) {
    if (tensor.name.starts_with(prefix)) layers.insert(layer_of_tensor(tensor.name));
  }
  layers.erase(-1);
  if (layers.empty()) {
    throw Error(ErrorKind::kUnsupported, source.string(),
                format("holds no tensors named {}N.*", prefix))
        .hint("only decoders whose layers have these names can be pruned");
  }
  const auto count = static_cast<std::int64_t>(layers.size());
  for (std::int64_t layer = 0; *layers.rbegin() != count - 1; ++layer) {
    if (layers.contains(layer)) continue;
    throw Error(
        ErrorKind::kInput, source.string(),
        format("layer {} has no tensors, although layer {} has some", layer, *layers.rbegin()))
        .hint(format("run `espalier verify {}` for the whole list", source.string()));
  }
  return count;
}

void stop_if_asked(const StopToken& stop) {
  if (stop.stop_requested()) throw Interrupted{};
}

}  // namespace

PrunedFiles prune_hf_folder(const std::filesystem::path& source, const Layers& kept,
                            const std::filesystem::path& destination, Reporter& reporter,
                            const StopToken& stop) {
  const HfFolder folder = HfFolder::open(source);
  const std::int64_t num_layers = count_layers(folder.tensors(), kHfLayers, source);
  const std::string config = prune_hf_config(folder.config_text(), kept, num_layers);

  std::vector<TensorSource> tensors;
  std::uint64_t weight_bytes = 0;
  for (const StoredTensor& stored : folder.tensors()) {
    auto name = renumbered(stored.name, kHfLayers, kept);
    if (!name) continue;
    weight_bytes += stored.data.size();
    tensors.push_back({{std::move(*name), stored.dtype, stored.shape}, stored, {}, {}});
  }

  PrunedFiles result;
  result.tensors = static_cast<std::int64_t>(tensors.size());
  const auto phase =
      reporter.phase("copying kept layers", static_cast<std::int64_t>(weight_bytes), "bytes");
  const auto written =
      write_hf_weight_files(destination, tensors, kMaxShardBytes, [&](std::uint64_t done) {
        phase->update(static_cast<std::int64_t>(done));
        stop_if_asked(stop);
      });
  write_file_atomically(destination / "config.json", config);
  result.bytes = config.size() + copy_companions(folder, destination);
  for (const WrittenFile& file : written) {
    result.bytes += file.bytes;
    result.digests.emplace_back(file.name, "xxh3:" + file.digest);
  }
  return result;
}

PrunedFiles prune_gguf_file(const std::filesystem::path& source, const Layers& kept,
                            const std::filesystem::path& destination, Reporter& reporter,
                            const StopToken& stop) {
  const GgufFile file = GgufFile::open(source);
  const std::int64_t num_layers = count_layers(file.tensors(), kGgufLayers, source);
  const auto metadata = prune_gguf_metadata(file, kept, num_layers);

  std::vector<GgufTensorPlan> plan;
  std::vector<const GgufTensor*> tensors;
  std::uint64_t weight_bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    auto name = renumbered(tensor.name, kGgufLayers, kept);
    if (!name) continue;
    weight_bytes += tensor.data.size();
    plan.push_back({std::move(*name), tensor.type, tensor.shape});
    tensors.push_back(&tensor);
  }

  PrunedFiles result;
  result.tensors = static_cast<std::int64_t>(tensors.size());
  const auto phase =
      reporter.phase("copying kept layers", static_cast<std::int64_t>(weight_bytes), "bytes");
  GgufWriter writer(destination, metadata, std::move(plan), file.alignment());
  writer.set_on_bytes([&](std::uint64_t done) {
    phase->update(static_cast<std::int64_t>(done));
    stop_if_asked(stop);
  });
  for (const GgufTensor* tensor : tensors) writer.append(*tensor);
  writer.finish();
  result.bytes = writer.size();
  result.digests.emplace_back(destination.filename().string(), "xxh3:" + writer.digest());
  return result;
}

}  // namespace espalier
