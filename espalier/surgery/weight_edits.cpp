// Pairing an adapter's tensors with a model's, and what they make of them.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/remap_adapter.h"
#include "espalier/surgery/weight_edits_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

/// Which kept list turns the adapter's layer numbers into the model's; empty when none is needed.
std::vector<std::int64_t> remap_list(const PeftFolder& peft, const std::filesystem::path& source,
                                     const DecoderConfig& config, const MergeOptions& options) {
  if (options.kept) {
    if (static_cast<std::int64_t>(options.kept->size()) != config.num_layers) {
      throw Error(
          ErrorKind::kUsage, "--kept",
          format("names {} layers, the model has {}", options.kept->size(), config.num_layers));
    }
    return *options.kept;
  }
  if (!options.remap || peft.layers() <= config.num_layers) return {};
  const auto record = read_pruning_record(source);
  if (!record || static_cast<std::int64_t>(record->kept.size()) != config.num_layers ||
      record->layers_before < peft.layers())
    return {};
  return record->kept;
}

class Pairing {
 public:
  Pairing(const TensorShapes& shapes, const DecoderConfig& config, const std::string& subject,
          WeightEdits& edits)
      : shapes_(shapes), config_(config), edits_(edits), problems_(ErrorKind::kInput, subject) {}

  void low_rank(const PeftModule& module, const std::string& name) {
    const std::string tensor = name + ".weight";
    const auto* shape = shape_of(tensor, module.a.name);
    if (shape == nullptr) return;
    const std::vector<std::int64_t> expected{module.out_features(), module.in_features()};
    if (*shape != expected)
      problems_.add(format("{} and its lora_B are for a weight of {}, {} is {}", module.a.name,
                           shape_text(expected), tensor, shape_text(*shape)));
    else
      take(tensor, {&module, nullptr}, module.a.name);
  }

  void replacement(const StoredTensor& stored, const std::string& name) {
    const auto* shape = shape_of(name, stored.name);
    if (shape == nullptr) return;
    if (*shape != stored.shape)
      problems_.add(format("{} is {}, {} of the model is {}", stored.name, shape_text(stored.shape),
                           name, shape_text(*shape)));
    else
      take(name, {nullptr, &stored}, stored.name);
  }

  void finish(const std::string& hint) { problems_.throw_if_any(hint); }

 private:
  const std::vector<std::int64_t>* shape_of(const std::string& tensor, const std::string& label) {
    auto it = shapes_.find(tensor);
    if (it == shapes_.end() && tensor == kHead && config_.tied_embeddings) {
      it = shapes_.find(kEmbedding);
      edits_.adds_head = true;
    }
    if (it != shapes_.end()) return &it->second;
    problems_.add(format("{}: the model has no tensor {}", label, tensor));
    return nullptr;
  }

  void take(const std::string& tensor, WeightEdit edit, const std::string& label) {
    if (!edits_.by_name.emplace(tensor, edit).second)
      problems_.add(format("{}: {} is changed twice", label, tensor));
  }

  const TensorShapes& shapes_;
  const DecoderConfig& config_;
  WeightEdits& edits_;
  ProblemList problems_;
};

void pair_peft(const std::filesystem::path& source, const DecoderConfig& config,
               const TensorShapes& shapes, const MergeOptions& options, Reporter& reporter,
               WeightEdits& edits) {
  const PeftFolder& peft = *edits.peft;
  edits.adapter_tensors = peft.tensor_count();
  edits.remapped = remap_list(peft, source, config, options);
  Pairing pairing(shapes, config, peft.path().string(), edits);
  const auto final_name = [&](const std::string& name) {
    return edits.remapped.empty() ? std::optional<std::string>(name)
                                  : remapped_name(name, edits.remapped);
  };
  for (const PeftModule& module : peft.modules()) {
    if (const auto name = final_name(module.name))
      pairing.low_rank(module, *name);
    else
      edits.left_out += module.magnitude ? 3 : 2;
  }
  for (const auto& [saved, stored] : peft.saved()) {
    if (const auto name = final_name(saved))
      pairing.replacement(stored, *name);
    else
      ++edits.left_out;
  }
  const bool deeper = edits.remapped.empty() && peft.layers() > config.num_layers;
  pairing.finish(deeper ? format("the adapter was trained on {} layers, the model has {}; if the "
                                 "model was pruned, name its layers with --kept",
                                 peft.layers(), config.num_layers)
                        : std::string());
  if (!edits.remapped.empty())
    reporter.info(format(
        "adapter of {} layers moved onto the kept layers {}; {} of its {} tensors "
        "belong to removed layers",
        peft.layers(), layer_set_text(edits.remapped), edits.left_out, edits.adapter_tensors));
  if (config.tied_embeddings && !edits.adds_head && edits.by_name.contains(kEmbedding)) {
    throw Error(ErrorKind::kUnsupported, peft.path().string(),
                "holds embed_tokens but no lm_head, and the model's head shares the embedding: "
                "replacing it would change the head, which PEFT leaves alone")
        .hint("save lm_head with the adapter (modules_to_save)");
  }
}

void pair_delta(const std::filesystem::path& path, const DecoderConfig& config,
                const TensorShapes& shapes, WeightEdits& edits) {
  const DeltaFile& delta = *edits.delta;
  edits.adapter_tensors = static_cast<std::int64_t>(delta.tensors.size());
  const std::vector<std::int64_t>& kept = delta.info.kept;
  const auto after =
      kept.empty() ? delta.info.layers_before : static_cast<std::int64_t>(kept.size());
  if (config.num_layers == delta.info.layers_before && after != config.num_layers)
    edits.prune = kept;
  else if (config.num_layers != after) {
    throw Error(ErrorKind::kInput, path.string(),
                format("is a delta of a model with {} layers, {} of them kept, but this one has {}",
                       delta.info.layers_before, after, config.num_layers))
        .hint(format("apply it to {}", delta.info.source.empty() ? "the model it was trained on"
                                                                 : delta.info.source));
  }
  TensorShapes finished;
  for (const auto& [name, shape] : shapes) {
    if (edits.prune.empty())
      finished[name] = shape;
    else if (const auto renamed = remapped_name(name, edits.prune))
      finished[*renamed] = shape;
  }
  Pairing pairing(finished, config, path.string(), edits);
  for (const StoredTensor& tensor : delta.tensors) pairing.replacement(tensor, tensor.name);
  pairing.finish("");
}

}  // namespace

void read_weight_edits(const std::filesystem::path& adapter, const std::filesystem::path& source,
                       const DecoderConfig& config, const TensorShapes& shapes,
                       const MergeOptions& options, Reporter& reporter, WeightEdits& edits) {
  if (std::filesystem::is_directory(adapter)) {
    edits.peft = PeftFolder::open(adapter);
    pair_peft(source, config, shapes, options, reporter, edits);
  } else {
    edits.delta = DeltaFile::open(adapter);
    pair_delta(adapter, config, shapes, edits);
  }
}

const WeightEdit* find_edit(const WeightEdits& edits, const std::string& name) {
  const auto it = edits.by_name.find(name);
  return it == edits.by_name.end() ? nullptr : &it->second;
}

at::Tensor edited_weight(const WeightEdit& edit, const at::Tensor& base) {
  const c10::NoGradGuard no_grad;
  if (edit.replacement != nullptr) {
    const StoredTensor& stored = *edit.replacement;
    return view_bytes(stored.data, stored.dtype, stored.shape, stored.file)
        .to(at::kCPU, at::kFloat);
  }
  return merge_low_rank(base, *load_low_rank(*edit.low_rank, at::kCPU));
}

}  // namespace espalier
