// GGUF files from a decoder in another form or another type, tensor by tensor.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/kept_layers_internal.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/model_metadata_internal.h"
#include "espalier/surgery/prune_gguf_metadata_internal.h"
#include "espalier/surgery/transcode_internal.h"
#include "espalier/surgery/write_model.h"
#include "espalier/text/export.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using Layers = std::vector<std::int64_t>;

struct GgufJob {
  GgufTensorPlan plan;
  StoredWeight stored;
  WeightForm form;            // in the target
  std::vector<float> values;  // instead of `stored`: tensors that the source does not have
};

/// Heads whose rows llama-arch GGUF files interleave; 0 for other tensors and architectures.
std::int64_t interleaved_heads(const DecoderConfig& config, std::string_view hf_name) {
  if (config.family != DecoderFamily::kLlama && config.family != DecoderFamily::kMistral) return 0;
  if (hf_name.find(".self_attn.q_proj.") != std::string_view::npos) return config.num_heads;
  if (hf_name.find(".self_attn.k_proj.") != std::string_view::npos) return config.num_kv_heads;
  return 0;
}

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

void write_jobs(const fs::path& destination, const GgufMetadata& metadata,
                const std::vector<GgufJob>& jobs, std::uint64_t alignment, Reporter& reporter,
                const StopToken& stop) {
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
  writer.set_on_bytes([&](std::uint64_t done) {
    phase->update(std::min(total, static_cast<std::int64_t>(done)));
    if (stop.stop_requested()) throw Interrupted{};
  });
  for (const GgufJob& job : jobs) {
    if (job.values.empty()) {
      writer.append(
          [&](const ByteSink& sink) { transcode(job.stored, job.plan.type, job.form, sink); });
    } else {
      writer.append(std::as_bytes(std::span(job.values)));
    }
  }
  writer.finish();
}

void folder_to_gguf(const fs::path& source, const fs::path& destination, GgufType type,
                    Reporter& reporter, const Layers& kept, const StopToken& stop) {
  const auto checkpoint = DecoderCheckpoint::open(source);
  const Layers layers = kept.empty() ? complement({}, checkpoint->config().num_layers) : kept;
  check_kept(layers, checkpoint->config().num_layers);
  DecoderConfig config = config_of_kept(checkpoint->config(), layers);
  // Readers of olmo2 files want a head of its own.
  const bool copied_head = config.family == DecoderFamily::kOlmo2 && config.tied_embeddings;
  if (copied_head) config.tied_embeddings = false;
  std::vector<std::string> warnings;
  const fs::path clean = fs::absolute(source).lexically_normal();
  const std::string name = (clean.has_filename() ? clean : clean.parent_path()).filename().string();
  GgufMetadata metadata = gguf_model_metadata(config, name, type, warnings);
  for (const std::string& warning : warnings) reporter.warn(warning);
  for (auto& entry :
       gguf_tokenizer_metadata(source, config.vocab_size, gguf_architecture(config.family)))
    metadata.push_back(std::move(entry));
  std::vector<GgufJob> jobs;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    GgufJob job;
    const bool head = copied_head && spec.name == "lm_head.weight";
    job.stored =
        checkpoint->stored(head ? "model.embed_tokens.weight" : name_in_source(spec.name, layers));
    job.plan = {gguf_name_of(spec.name, config.family),
                target_type(job.stored, type, spec.name, reporter), spec.shape};
    job.form.heads = interleaved_heads(config, spec.name);
    job.form.offset = gguf_stores_plus_one(config, spec.name) ? 1 : 0;
    jobs.push_back(std::move(job));
  }
  for (auto& [tensor_name, factors] : gguf_rope_factors(config)) {
    GgufJob job;
    job.plan = {tensor_name, GgufType::kF32, {static_cast<std::int64_t>(factors.size())}};
    job.values = std::move(factors);
    jobs.push_back(std::move(job));
  }
  write_jobs(destination, metadata, jobs, 32, reporter, stop);
}

void gguf_to_gguf(const fs::path& source, const fs::path& destination, GgufType type,
                  Reporter& reporter, const Layers& kept, const StopToken& stop) {
  const GgufFile file = GgufFile::open(source);
  const auto count =
      static_cast<std::int64_t>(file.get_uint(file.architecture() + ".block_count").value_or(0));
  const Layers layers = kept.empty() ? complement({}, count) : kept;
  GgufMetadata metadata = prune_gguf_metadata(file, layers, count);
  std::erase_if(metadata, [](const auto& entry) { return entry.first == "general.file_type"; });
  metadata.emplace_back("general.file_type", GgufValue::u32(gguf_file_type(type)));
  std::vector<GgufJob> jobs;
  bool lossy = false;
  for (const GgufTensor& tensor : file.tensors()) {
    auto name = renumbered(tensor.name, kGgufLayers, layers);
    if (!name) continue;
    GgufJob job;
    job.stored = {tensor.type, tensor.shape, tensor.data, tensor.file, 0};
    job.plan = {std::move(*name), target_type(job.stored, type, tensor.name, reporter),
                tensor.shape};
    lossy = lossy || (gguf_type_info(tensor.type).block > 1 &&
                      gguf_type_info(job.plan.type).block > 1 && tensor.type != job.plan.type);
    jobs.push_back(std::move(job));
  }
  if (lossy)
    reporter.warn(
        "quantised weights are quantised again, which loses more than quantising the original "
        "would");
  write_jobs(destination, metadata, jobs, file.alignment(), reporter, stop);
}

}  // namespace

void convert_to_gguf(const fs::path& source, const fs::path& destination, GgufType type,
                     Reporter& reporter, const Layers& kept, const StopToken& stop) {
  gguf_file_type(type);  // refuses types that cannot be written
  if (fs::is_directory(source)) {
    folder_to_gguf(source, destination, type, reporter, kept, stop);
  } else {
    gguf_to_gguf(source, destination, type, reporter, kept, stop);
  }
}

GgufType default_gguf_type(const fs::path& source) {
  const auto checkpoint = DecoderCheckpoint::open(source);
  return checkpoint->stored(layer_prefix(0) + "mlp.down_proj.weight").type;
}

}  // namespace espalier
