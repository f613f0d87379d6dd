// Hugging Face folders from a decoder in another form, tensor by tensor: memory stays O(one piece
// of a tensor).
#include "espalier/surgery/write_model.h"

#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/hf_folder.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/companions.h"
#include "espalier/surgery/kept_layers_internal.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/model_metadata_internal.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/surgery/transcode_internal.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/text/export.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using Layers = std::vector<std::int64_t>;

/// The kept tensors of `checkpoint` as sources in `dtype`; `checkpoint` must outlive the write.
std::vector<TensorSource> converted_tensors(const DecoderCheckpoint& checkpoint, const Layers& kept,
                                            Dtype dtype) {
  const GgufType type = gguf_type_of(dtype);
  std::vector<TensorSource> tensors;
  for (const TensorSpec& spec : decoder_tensor_specs(config_of_kept(checkpoint.config(), kept))) {
    const std::string source = name_in_source(spec.name, kept);
    tensors.push_back({{spec.name, dtype, spec.shape},
                       {},
                       [&checkpoint, source, type](const ByteSink& sink) {
                         transcode(checkpoint.stored(source), type, {}, sink);
                       },
                       {}});
  }
  return tensors;
}

void write_weights(const fs::path& destination, const std::vector<TensorSource>& tensors,
                   std::string_view what, Reporter& reporter, const StopToken& stop) {
  const auto phase = reporter.phase(what, static_cast<std::int64_t>(total_bytes(tensors)), "bytes");
  write_hf_weights(destination, tensors, kMaxShardBytes, [&](std::uint64_t done) {
    phase->update(static_cast<std::int64_t>(done));
    if (stop.stop_requested()) throw Interrupted{};
  });
}

/// Everything but the weights of a folder made from a GGUF file.
void write_folder_files(const GgufFile& file, const DecoderConfig& config, Dtype dtype,
                        const fs::path& destination) {
  write_file_atomically(destination / "config.json", hf_config_text(config, file, dtype));
  write_file_atomically(destination / "generation_config.json",
                        hf_generation_config_text(config, file));
  write_hf_tokenizer(file, destination);
}

/// config.json of a folder whose weights get another type, under whichever key it uses.
std::string retyped(const std::string& config_text, Dtype dtype) {
  Json config = parse_json(config_text, "config.json");
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = dtype_name(dtype);
  return dump_json(config);
}

std::string untied(const std::string& config_text) {
  Json config = parse_json(config_text, "config.json");
  config["tie_word_embeddings"] = false;
  return dump_json(config);
}

/// Puts the new tensors into the list. Throws Error(kInternal) for names or shapes that do not
/// belong to the model. Returns true when an lm_head.weight was added.
bool replace(std::vector<TensorSource>& tensors,
             const std::map<std::string, at::Tensor>& replaced) {
  bool added_head = false;
  for (const auto& [name, tensor] : replaced) {
    ESPALIER_ASSERT(tensor.device().is_cpu() && tensor.is_contiguous());
    const TensorPlan plan{name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()};
    const auto at = std::find_if(tensors.begin(), tensors.end(),
                                 [&, key = name](const auto& t) { return t.plan.name == key; });
    if (at == tensors.end()) {
      if (name != "lm_head.weight")
        throw Error(ErrorKind::kInternal, name,
                    "is to be replaced, but the model has no such tensor");
      added_head = true;
      tensors.push_back({plan, {}, {}, tensor_bytes(tensor)});
      continue;
    }
    if (at->plan.shape != plan.shape) {
      throw Error(ErrorKind::kInternal, name,
                  format("is {} in the model, but the replacement is {}",
                         shape_text(at->plan.shape), shape_text(plan.shape)));
    }
    *at = {plan, {}, {}, tensor_bytes(tensor)};
  }
  return added_head;
}

}  // namespace

void write_hf_with_replacements(const fs::path& source,
                                const std::map<std::string, at::Tensor>& replaced,
                                const fs::path& destination, Reporter& reporter) {
  if (!fs::is_directory(source)) {
    const GgufFile file = GgufFile::open(source);
    const auto checkpoint = DecoderCheckpoint::open(source);
    const Dtype dtype =
        replaced.empty() ? Dtype::kF32 : to_dtype(replaced.begin()->second.scalar_type());
    DecoderConfig config = checkpoint->config();
    std::vector<TensorSource> tensors =
        converted_tensors(*checkpoint, complement({}, config.num_layers), dtype);
    if (replace(tensors, replaced)) config.tied_embeddings = false;
    write_weights(destination, tensors, "writing model", reporter, never_stop());
    write_folder_files(file, config, dtype, destination);
    return;
  }
  const HfFolder folder = HfFolder::open(source);
  std::vector<TensorSource> tensors;
  for (const StoredTensor& stored : folder.tensors())
    tensors.push_back({{stored.name, stored.dtype, stored.shape}, stored, {}, {}});
  const bool added_head = replace(tensors, replaced);
  write_weights(destination, tensors, "writing model", reporter, never_stop());
  write_file_atomically(destination / "config.json",
                        added_head ? untied(folder.config_text()) : folder.config_text());
  copy_companions(folder, destination);
}

void convert_to_hf(const fs::path& source, const fs::path& destination, Dtype dtype,
                   Reporter& reporter, const Layers& kept, const StopToken& stop) {
  const auto checkpoint = DecoderCheckpoint::open(source);
  const std::int64_t num_layers = checkpoint->config().num_layers;
  const Layers layers = kept.empty() ? complement({}, num_layers) : kept;
  check_kept(layers, num_layers);
  // Small files first: what cannot be said is refused before gigabytes are written.
  if (fs::is_directory(source)) {
    const HfFolder folder = HfFolder::open(source);
    write_file_atomically(
        destination / "config.json",
        retyped(prune_hf_config(folder.config_text(), layers, num_layers), dtype));
    copy_companions(folder, destination);
  } else {
    write_folder_files(GgufFile::open(source), config_of_kept(checkpoint->config(), layers), dtype,
                       destination);
  }
  write_weights(destination, converted_tensors(*checkpoint, layers, dtype),
                "writing a model folder", reporter, stop);
}

void convert_gguf_to_hf(const fs::path& gguf, const fs::path& destination, Dtype dtype,
                        Reporter& reporter) {
  convert_to_hf(gguf, destination, dtype, reporter);
}

GgufType gguf_type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return GgufType::kF32;
    case Dtype::kF16:
      return GgufType::kF16;
    case Dtype::kBF16:
      return GgufType::kBF16;
    default:
      break;
  }
  throw Error(ErrorKind::kUnsupported, "--type",
              format("a model folder cannot be written as {}", dtype_name(dtype)))
      .hint("one of f32, f16, bf16");
}

Dtype dtype_of(GgufType type) {
  return type == GgufType::kF16    ? Dtype::kF16
         : type == GgufType::kBF16 ? Dtype::kBF16
                                   : Dtype::kF32;
}

// Quantised values are exact only in float32.
Dtype default_hf_dtype(const fs::path& source) { return dtype_of(default_gguf_type(source)); }

}  // namespace espalier
