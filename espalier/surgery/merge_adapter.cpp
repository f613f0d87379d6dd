// See merge_adapter.h. Both writers stream: a tensor that changes is formed when its turn comes.
#include "espalier/surgery/merge_adapter.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/models/decoder/bnb_weights.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/companions.h"
#include "espalier/surgery/compare_models.h"
#include "espalier/surgery/kept_layers_internal.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/surgery/weight_edits_internal.h"
#include "espalier/surgery/write_model.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

/// A folder's tensors by name, bitsandbytes weights as what they stand for.
class FolderWeights {
 public:
  explicit FolderWeights(const HfFolder& folder) : folder_(folder) {
    std::vector<std::string> problems;
    bnb_ = BnbWeights::collect(folder.tensors(), problems);
    ESPALIER_ASSERT(problems.empty());  // DecoderCheckpoint::open has looked already
  }
  const BnbWeights& bnb() const { return bnb_; }

  TensorShapes shapes() const {
    TensorShapes out;
    for (const StoredTensor& t : folder_.tensors()) {
      if (!bnb_.owns(t.name)) out[t.name] = t.shape;
    }
    for (const std::string& name : bnb_.names()) out[name] = bnb_.shape(name);
    return out;
  }

  Dtype dtype(const StoredTensor& t) const {
    return bnb_.has(t.name) ? to_dtype(bnb_.load(t.name).rounding) : t.dtype;
  }

  at::Tensor load(const std::string& name) const {
    if (bnb_.has(name)) return nf4_dequantize(bnb_.load(name), at::kFloat);
    const StoredTensor* t = folder_.find(name);
    ESPALIER_ASSERT(t != nullptr);
    return view_bytes(t->data, t->dtype, t->shape, t->file).to(at::kFloat);
  }

 private:
  const HfFolder& folder_;
  BnbWeights bnb_;
};

/// The whole tensor in its stored type when its turn comes.
ByteProducer producer(const FolderWeights& weights, const std::string& name, const WeightEdit* edit,
                      Dtype dtype) {
  return [&weights, name, edit, dtype](const ByteSink& sink) {
    const c10::NoGradGuard no_grad;
    const bool whole = edit != nullptr && edit->replacement != nullptr;
    at::Tensor value = whole ? at::Tensor() : weights.load(name);
    if (edit != nullptr) value = edited_weight(*edit, value);
    value = value.to(to_scalar_type(dtype)).contiguous();
    sink(tensor_bytes(value));
  };
}

std::vector<TensorSource> folder_sources(const HfFolder& folder, const FolderWeights& weights,
                                         const WeightEdits& edits) {
  std::vector<TensorSource> out;
  Dtype embedding = Dtype::kF32;
  for (const StoredTensor& t : folder.tensors()) {
    const bool quantised = weights.bnb().has(t.name);
    if (!quantised && weights.bnb().owns(t.name)) continue;
    std::string name = t.name;
    if (!edits.prune.empty()) {
      auto renamed = renumbered(t.name, kHfLayers, edits.prune);
      if (!renamed) continue;
      name = std::move(*renamed);
    }
    const WeightEdit* edit = find_edit(edits, name);
    if (edit == nullptr && !quantised) {
      out.push_back({{name, t.dtype, t.shape}, t, {}, {}});
    } else {
      const Dtype dtype = weights.dtype(t);
      out.push_back({{name, dtype, quantised ? weights.bnb().shape(t.name) : t.shape},
                     {},
                     producer(weights, t.name, edit, dtype),
                     {}});
    }
    if (t.name == kEmbedding) embedding = weights.dtype(t);
  }
  if (edits.adds_head) {
    out.push_back({{kHead, embedding, folder.find(kEmbedding)->shape},
                   {},
                   producer(weights, kEmbedding, find_edit(edits, kHead), embedding),
                   {}});
  }
  return out;
}

std::string merged_config(const HfFolder& folder, const DecoderConfig& config,
                          const WeightEdits& edits) {
  std::string text = folder.config_text();
  if (!edits.prune.empty()) text = prune_hf_config(text, edits.prune, config.num_layers);
  Json json = parse_json(text, "config.json");
  const bool quantised = json.erase("quantization_config") > 0;
  if (edits.adds_head) json["tie_word_embeddings"] = false;
  return quantised || edits.adds_head ? dump_json(json) : text;
}

GgufType written_type(const HfFolder& folder, const FolderWeights& weights,
                      const WeightEdits& edits) {
  GgufType type = GgufType::kF32;
  for (const StoredTensor& t : folder.tensors()) {
    const auto name =
        edits.prune.empty() ? std::optional(t.name) : renumbered(t.name, kHfLayers, edits.prune);
    if (!name || (find_edit(edits, *name) == nullptr && !weights.bnb().has(t.name))) continue;
    const Dtype dtype = weights.dtype(t);
    if (dtype == Dtype::kBF16 || dtype == Dtype::kF16) type = GgufType::kBF16;
  }
  return type;
}

void merge_folder(const fs::path& source, const WeightEdits& edits, const DecoderConfig& config,
                  const fs::path& destination, Reporter& reporter, const StopToken& stop,
                  MergeSummary& summary) {
  const HfFolder folder = HfFolder::open(source);
  const FolderWeights weights(folder);
  if (!weights.bnb().empty())
    reporter.info("weights that bitsandbytes quantised are written as plain ones");
  write_file_atomically(destination / "config.json", merged_config(folder, config, edits));
  const std::vector<TensorSource> sources = folder_sources(folder, weights, edits);
  {
    const auto phase =
        reporter.phase("merging", static_cast<std::int64_t>(total_bytes(sources)), "bytes");
    for (const WrittenFile& file :
         write_hf_weight_files(destination, sources, kMaxShardBytes, [&](std::uint64_t done) {
           phase->update(static_cast<std::int64_t>(done));
           if (stop.stop_requested()) throw Interrupted{};
         }))
      summary.bytes += file.bytes;
  }
  summary.bytes += copy_companions(folder, destination);
  // What a pruned model was made of stays true after a merge.
  const fs::path record = source / "espalier_pruning.json";
  if (edits.prune.empty() && fs::is_regular_file(record))
    write_file_atomically(destination / record.filename(), read_file(record, 64u << 20));
  verify_merged(source, edits, destination,
                comparison_limit(GgufType::kF32, written_type(folder, weights, edits)), reporter,
                summary);
}

/// Floats stay what they are; what was quantised loses least as Q8_0.
GgufType merged_type(const GgufTensor& tensor, const MergeOptions& options, Reporter& reporter) {
  if (tensor.shape.size() < 2) return GgufType::kF32;
  const bool is_float = gguf_type_info(tensor.type).block == 1;
  const GgufType type = options.type.value_or(is_float ? tensor.type : GgufType::kQ8_0);
  const GgufTypeInfo& info = gguf_type_info(type);
  if (tensor.shape.back() % info.block == 0) return type;
  reporter.warn(format("{} is written as F16: its rows of {} are no multiple of {}'s block of {}",
                       tensor.name, tensor.shape.back(), info.name, info.block));
  return GgufType::kF16;
}

/// float32 values under the Hugging Face name -> bytes of `type` as `like` lies in its file: its
/// order of rows, and gemma's norms one above.
std::vector<std::byte> encoded(const at::Tensor& value, GgufType type, const StoredWeight& like) {
  at::Tensor rows = like.offset == 0 ? value.contiguous() : value + like.offset;
  if (const std::int64_t heads = like.permuted_heads; heads != 0) {
    const auto order = gguf_rope_rows(heads, value.size(0) / heads);
    rows = rows.index_select(0, at::tensor(order, at::kLong));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(gguf_bytes(type, rows.numel())));
  quantize(type, {rows.const_data_ptr<float>(), static_cast<std::size_t>(rows.numel())}, bytes);
  return bytes;
}

struct GgufJob {
  const GgufTensor* tensor = nullptr;  // copied, or the base of `edit`
  const WeightEdit* edit = nullptr;
  std::string base;  // Hugging Face name
  GgufType type = GgufType::kF32;
  std::string name;
};

std::vector<GgufJob> gguf_jobs(const GgufFile& file, DecoderFamily family, const WeightEdits& edits,
                               const MergeOptions& options, Reporter& reporter) {
  std::vector<GgufJob> jobs;
  for (const GgufTensor& t : file.tensors()) {
    const std::string base = hf_name_of(t.name, family);
    const WeightEdit* edit = base.empty() ? nullptr : find_edit(edits, base);
    jobs.push_back({&t, edit, base, edit ? merged_type(t, options, reporter) : t.type, t.name});
  }
  if (edits.adds_head) {
    const GgufTensor* t = file.find_tensor(gguf_name_of(kEmbedding, family));
    ESPALIER_ASSERT(t != nullptr);
    jobs.push_back({t, find_edit(edits, kHead), kEmbedding, merged_type(*t, options, reporter),
                    gguf_name_of(kHead, family)});
  }
  return jobs;
}

void merge_gguf(const fs::path& source, const DecoderCheckpoint& checkpoint,
                const WeightEdits& edits, const fs::path& destination, const MergeOptions& options,
                Reporter& reporter, const StopToken& stop, MergeSummary& summary) {
  if (!edits.prune.empty()) {
    throw Error(ErrorKind::kUnsupported, source.string(),
                "is the unpruned model of a delta, and a GGUF file is merged without pruning")
        .hint("prune it first: `espalier prune ... --keep`, then merge");
  }
  const GgufFile file = GgufFile::open(source);
  const std::vector<GgufJob> jobs =
      gguf_jobs(file, checkpoint.config().family, edits, options, reporter);
  std::vector<GgufTensorPlan> plan;
  GgufType coarsest = GgufType::kF32;
  std::int64_t total = 0;
  for (const GgufJob& job : jobs) {
    plan.push_back({job.name, job.type, job.tensor->shape});
    total += gguf_bytes(job.type, job.tensor->numel());
    if (job.edit && gguf_type_info(job.type).bytes * gguf_type_info(coarsest).block <
                        gguf_type_info(coarsest).bytes * gguf_type_info(job.type).block)
      coarsest = job.type;
  }
  {
    const auto phase = reporter.phase("merging", total, "bytes");
    GgufWriter writer(destination, file.metadata(), std::move(plan), file.alignment());
    writer.set_on_bytes([&](std::uint64_t done) {
      phase->update(std::min(total, static_cast<std::int64_t>(done)));
      if (stop.stop_requested()) throw Interrupted{};
    });
    for (const GgufJob& job : jobs) {
      if (job.edit == nullptr) {
        writer.append(*job.tensor);
        continue;
      }
      const c10::NoGradGuard no_grad;
      const bool whole = job.edit->replacement != nullptr;
      const at::Tensor base =
          whole ? at::Tensor() : checkpoint.load(job.base, at::kFloat, at::kCPU);
      writer.append(encoded(edited_weight(*job.edit, base), job.type, checkpoint.stored(job.base)));
    }
    writer.finish();
    summary.bytes = writer.size();
  }
  verify_merged(source, edits, destination, comparison_limit(GgufType::kF32, coarsest), reporter,
                summary);
}

}  // namespace

MergeSummary merge_adapter(const fs::path& source, const fs::path& adapter,
                           const fs::path& destination, const MergeOptions& options,
                           Reporter& reporter, const StopToken& stop) {
  const auto checkpoint = DecoderCheckpoint::open(source);
  const bool is_folder = fs::is_directory(source);
  TensorShapes shapes;
  if (is_folder) {
    const HfFolder folder = HfFolder::open(source);
    shapes = FolderWeights(folder).shapes();
    // A tied head that lies in the file nevertheless is not the model's.
    if (checkpoint->config().tied_embeddings) shapes.erase(kHead);
  } else {
    for (const TensorSpec& spec : decoder_tensor_specs(checkpoint->config()))
      shapes[spec.name] = spec.shape;
  }
  WeightEdits edits;
  read_weight_edits(adapter, source, checkpoint->config(), shapes, options, reporter, edits);
  MergeSummary summary;
  for (const auto& [name, edit] : edits.by_name)
    ++(edit.low_rank ? summary.low_rank : summary.replaced);
  summary.adapter_tensors = edits.adapter_tensors;
  summary.left_out = edits.left_out;
  summary.remapped = edits.remapped;
  summary.untied_head = edits.adds_head;
  if (is_folder)
    merge_folder(source, edits, checkpoint->config(), destination, reporter, stop, summary);
  else
    merge_gguf(source, *checkpoint, edits, destination, options, reporter, stop, summary);
  return summary;
}

}  // namespace espalier
