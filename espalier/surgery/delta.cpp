// See delta.h.
#include "espalier/surgery/delta.h"

#include <charconv>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr const char* kMarker = "espalier_delta";
constexpr std::int64_t kMaxLayers = 10'000;

std::string metadata_of(const SafetensorsFile& file, const std::string& key) {
  const auto it = file.metadata().find(key);
  return it == file.metadata().end() ? std::string() : it->second;
}

}  // namespace

DeltaFile DeltaFile::open(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  if (metadata_of(file, kMarker) != "1") {
    throw Error(ErrorKind::kInput, path.string(),
                format("is no delta checkpoint: its metadata has no {} \"1\"", kMarker))
        .hint("give an adapter folder, or the delta that `espalier finetune` wrote");
  }
  DeltaFile out;
  out.info.source = metadata_of(file, "source");
  const std::string layers = metadata_of(file, "layers_before");
  const auto parsed =
      std::from_chars(layers.data(), layers.data() + layers.size(), out.info.layers_before);
  if (layers.empty() || parsed.ec != std::errc() || parsed.ptr != layers.data() + layers.size() ||
      out.info.layers_before < 1 || out.info.layers_before > kMaxLayers) {
    throw Error(ErrorKind::kInput, path.string(),
                format("layers_before is \"{}\", expected 1-{}", layers.substr(0, 40), kMaxLayers));
  }
  try {
    const std::string kept = metadata_of(file, "kept");
    if (!kept.empty()) {
      out.info.kept = parse_layer_list(kept, out.info.layers_before, "kept");
      check_kept(out.info.kept, out.info.layers_before);
    }
  } catch (const Error& error) {
    throw Error(ErrorKind::kInput, path.string(), format("kept: {}", error.message()));
  }
  out.tensors = file.tensors();
  return out;
}

void write_delta(const std::filesystem::path& path,
                 const std::map<std::string, at::Tensor>& tensors, const DeltaInfo& info) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors) {
    ESPALIER_ASSERT(tensor.is_contiguous() && tensor.device().is_cpu());
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, std::move(plan),
                           {{"format", "pt"},
                            {kMarker, "1"},
                            {"source", info.source},
                            {"layers_before", format("{}", info.layers_before)},
                            {"kept", layer_set_text(info.kept)}});
  for (const auto& [name, tensor] : tensors) writer.append(tensor_bytes(tensor));
  writer.finish();
}

}  // namespace espalier
