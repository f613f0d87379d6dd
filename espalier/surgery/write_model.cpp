// Whole models from one format to another, tensor by tensor: memory stays O(one piece of a tensor).
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
#include "espalier/surgery/model_metadata_internal.h"
#include "espalier/surgery/transcode_internal.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/text/export.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const fs::path& source) { return !fs::is_directory(source); }

GgufType type_of(Dtype dtype) {
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

/// Heads whose rows llama-arch GGUF files interleave; 0 for other tensors and architectures.
std::int64_t interleaved_heads(const DecoderConfig& config, std::string_view hf_name) {
  if (config.family == DecoderFamily::kQwen2) return 0;
  if (hf_name.find(".self_attn.q_proj.") != std::string_view::npos) return config.num_heads;
  if (hf_name.find(".self_attn.k_proj.") != std::string_view::npos) return config.num_kv_heads;
  return 0;
}

/// The tensors of `checkpoint` as sources in `dtype`; `checkpoint` must outlive the write.
std::vector<TensorSource> converted_tensors(const DecoderCheckpoint& checkpoint, Dtype dtype) {
  const GgufType type = type_of(dtype);
  std::vector<TensorSource> tensors;
  for (const TensorSpec& spec : decoder_tensor_specs(checkpoint.config())) {
    tensors.push_back({{spec.name, dtype, spec.shape},
                       {},
                       [&checkpoint, name = spec.name, type](const ByteSink& sink) {
                         transcode(checkpoint.stored(name), type, 0, sink);
                       },
                       {}});
  }
  return tensors;
}

std::int64_t total_bytes(const std::vector<TensorSource>& tensors) {
  std::int64_t bytes = 0;
  for (const TensorSource& tensor : tensors) {
    std::int64_t size = dtype_size(tensor.plan.dtype);
    for (const std::int64_t dim : tensor.plan.shape) size *= dim;
    bytes += size;
  }
  return bytes;
}

void write_weights(const fs::path& destination, const std::vector<TensorSource>& tensors,
                   std::string_view what, Reporter& reporter) {
  const auto phase = reporter.phase(what, total_bytes(tensors), "bytes");
  write_hf_weights(destination, tensors, 5'000'000'000ull,
                   [&](std::uint64_t done) { phase->update(static_cast<std::int64_t>(done)); });
}

/// Everything but the weights of a folder made from a GGUF file.
void write_folder_files(const GgufFile& file, const DecoderConfig& config, Dtype dtype,
                        const fs::path& destination) {
  write_file_atomically(destination / "config.json", hf_config_text(config, file, dtype));
  write_file_atomically(destination / "generation_config.json",
                        hf_generation_config_text(config, file));
  write_hf_tokenizer(file, destination);
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

struct GgufJob {
  GgufTensorPlan plan;
  StoredWeight stored;
  std::int64_t heads = 0;     // target row order
  std::vector<float> values;  // instead of `stored`: tensors that the source does not have
};

/// Matrices become `type`, vectors F32; a matrix whose rows the block does not divide becomes F16.
GgufType target_type(const StoredWeight& stored, GgufType type, const std::string& name,
                     Reporter& reporter) {
  if (stored.shape.size() < 2) return GgufType::kF32;
  const GgufTypeInfo& info = gguf_type_info(type);
  if (stored.shape.back() % info.block == 0) return type;
  reporter.warn(format("{} is written as F16: its rows of {} are no multiple of {}'s block of {}",
                       name, stored.shape.back(), info.name, info.block));
  return GgufType::kF16;
}

void write_gguf(const fs::path& destination,
                const std::vector<std::pair<std::string, GgufValue>>& metadata,
                const std::vector<GgufJob>& jobs, std::uint64_t alignment, Reporter& reporter) {
  std::vector<GgufTensorPlan> plan;
  std::int64_t total = 0;
  for (const GgufJob& job : jobs) {
    plan.push_back(job.plan);
    std::int64_t numel = 1;
    for (const std::int64_t size : job.plan.shape) numel *= size;
    total += gguf_bytes(job.plan.type, numel);
  }
  const auto phase = reporter.phase("writing GGUF", total, "bytes");
  GgufWriter writer(destination, metadata, std::move(plan), alignment);
  writer.set_on_bytes(
      [&](std::uint64_t done) { phase->update(std::min(total, static_cast<std::int64_t>(done))); });
  for (const GgufJob& job : jobs) {
    if (job.values.empty()) {
      writer.append(
          [&](const ByteSink& sink) { transcode(job.stored, job.plan.type, job.heads, sink); });
    } else {
      writer.append(std::as_bytes(std::span(job.values)));
    }
  }
  writer.finish();
}

void convert_folder_to_gguf(const fs::path& source, const fs::path& destination, GgufType type,
                            Reporter& reporter) {
  const auto checkpoint = DecoderCheckpoint::open(source);
  const DecoderConfig& config = checkpoint->config();
  std::vector<std::string> warnings;
  auto metadata = gguf_model_metadata(
      config, fs::absolute(source).lexically_normal().filename().string(), type, warnings);
  for (const std::string& warning : warnings) reporter.warn(warning);
  for (auto& entry : gguf_tokenizer_metadata(source, config.vocab_size))
    metadata.push_back(std::move(entry));
  std::vector<GgufJob> jobs;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    GgufJob job;
    job.stored = checkpoint->stored(spec.name);
    job.plan = {gguf_name_of(spec.name), target_type(job.stored, type, spec.name, reporter),
                spec.shape};
    job.heads = interleaved_heads(config, spec.name);
    jobs.push_back(std::move(job));
  }
  if (std::vector<float> factors = gguf_rope_factors(config); !factors.empty()) {
    GgufJob job;
    job.plan = {"rope_freqs.weight", GgufType::kF32, {static_cast<std::int64_t>(factors.size())}};
    job.values = std::move(factors);
    jobs.push_back(std::move(job));
  }
  write_gguf(destination, metadata, jobs, 32, reporter);
}

void requantize_gguf(const fs::path& source, const fs::path& destination, GgufType type,
                     Reporter& reporter) {
  const GgufFile file = GgufFile::open(source);
  std::vector<std::pair<std::string, GgufValue>> metadata;
  for (const auto& [key, value] : file.metadata()) {
    if (key.starts_with("split.") || key == "general.file_type") continue;
    metadata.emplace_back(key, value);
  }
  metadata.emplace_back("general.file_type", GgufValue::u32(gguf_file_type(type)));
  std::vector<GgufJob> jobs;
  bool lossy = false;
  for (const GgufTensor& tensor : file.tensors()) {
    GgufJob job;
    job.stored = {tensor.type, tensor.shape, tensor.data, tensor.file, 0};
    job.plan = {tensor.name, target_type(job.stored, type, tensor.name, reporter), tensor.shape};
    lossy = lossy || (gguf_type_info(tensor.type).block > 1 &&
                      gguf_type_info(job.plan.type).block > 1 && tensor.type != job.plan.type);
    jobs.push_back(std::move(job));
  }
  if (lossy)
    reporter.warn(
        "quantised weights are quantised again, which loses more than quantising the original "
        "would");
  write_gguf(destination, metadata, jobs, file.alignment(), reporter);
}

}  // namespace

void write_hf_with_replacements(const fs::path& source,
                                const std::map<std::string, at::Tensor>& replaced,
                                const fs::path& destination, Reporter& reporter) {
  if (is_gguf(source)) {
    const GgufFile file = GgufFile::open(source);
    const auto checkpoint = DecoderCheckpoint::open(source);
    const Dtype dtype =
        replaced.empty() ? Dtype::kF32 : to_dtype(replaced.begin()->second.scalar_type());
    std::vector<TensorSource> tensors = converted_tensors(*checkpoint, dtype);
    DecoderConfig config = checkpoint->config();
    if (replace(tensors, replaced)) config.tied_embeddings = false;
    write_weights(destination, tensors, "writing model", reporter);
    write_folder_files(file, config, dtype, destination);
    return;
  }
  const HfFolder folder = HfFolder::open(source);
  std::vector<TensorSource> tensors;
  for (const StoredTensor& stored : folder.tensors()) {
    tensors.push_back({{stored.name, stored.dtype, stored.shape}, stored, {}, {}});
  }
  const bool added_head = replace(tensors, replaced);
  write_weights(destination, tensors, "writing model", reporter);
  write_file_atomically(destination / "config.json",
                        added_head ? untied(folder.config_text()) : folder.config_text());
  copy_companions(folder, destination);
}

void convert_gguf_to_hf(const fs::path& gguf, const fs::path& destination, Dtype dtype,
                        Reporter& reporter) {
  const GgufFile file = GgufFile::open(gguf);
  const auto checkpoint = DecoderCheckpoint::open(gguf);
  write_folder_files(file, checkpoint->config(), dtype,
                     destination);  // refusals come before gigabytes
  write_weights(destination, converted_tensors(*checkpoint, dtype), "converting to a folder",
                reporter);
}

void convert_to_gguf(const fs::path& source, const fs::path& destination, GgufType type,
                     Reporter& reporter) {
  gguf_file_type(type);  // refuses types that cannot be written
  if (is_gguf(source)) {
    requantize_gguf(source, destination, type, reporter);
  } else {
    convert_folder_to_gguf(source, destination, type, reporter);
  }
}

}  // namespace espalier
