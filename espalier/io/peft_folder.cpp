// Opening and writing an adapter folder: every tensor's name is taken apart, and what is left over
// is an error.
#include "espalier/io/peft_folder.h"

#include <algorithm>
#include <charconv>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConfig = "adapter_config.json";
constexpr std::string_view kWeights = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";

enum class Part : std::uint8_t { kA, kB, kMagnitude, kWhole, kUnknown };

struct ParsedName {
  Part part = Part::kUnknown;
  std::string module;  // or the whole tensor's final name
};

/// Wrappers that training programs put around a model, gone; the rest starts at "model." or at a
/// module beside it.
std::string_view without_wrappers(std::string_view name, std::string& storage) {
  static constexpr std::string_view kWrappers[]{"base_model.model.", "base_model.", "module.",
                                                "_orig_mod."};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view wrapper : kWrappers) {
      if (name.starts_with(wrapper)) name.remove_prefix(wrapper.size()), again = true;
    }
    if (name.starts_with("model.model.") || name.starts_with("model.lm_head."))
      name.remove_prefix(6), again = true;
  }
  // Language models inside multimodal ones.
  for (const std::string_view inner : {"language_model.model.", "model.language_model."}) {
    if (name.starts_with(inner)) {
      storage = "model." + std::string(name.substr(inner.size()));
      return storage;
    }
  }
  // An adapter of the bare decoder, without its head.
  for (const std::string_view bare : {"layers.", "embed_tokens.", "norm."}) {
    if (name.starts_with(bare)) {
      storage = "model." + std::string(name);
      return storage;
    }
  }
  return name;
}

/// "weight", "default.weight": what may follow lora_A, with or without an adapter's name.
bool is_weight_tail(std::string_view tail) {
  const std::size_t dot = tail.find('.');
  return tail == "weight" ||
         (dot != 0 && dot != std::string_view::npos && tail.substr(dot + 1) == "weight");
}

ParsedName parse_name(std::string_view spelled) {
  std::string storage;
  const std::string_view name = without_wrappers(spelled, storage);
  const auto split = [&](std::string_view marker, std::string_view& before,
                         std::string_view& after) {
    const std::size_t at = name.find(marker);
    if (at == std::string_view::npos || at == 0) return false;
    before = name.substr(0, at);
    after = name.substr(at + marker.size());
    return true;
  };
  std::string_view before, after;
  if (split(".lora_A.", before, after) && is_weight_tail(after))
    return {Part::kA, std::string(before)};
  if (split(".lora_B.", before, after) && is_weight_tail(after))
    return {Part::kB, std::string(before)};
  if (split(".lora_magnitude_vector", before, after) &&
      (after.empty() || (after.front() == '.' && after.find('.', 1) == std::string_view::npos) ||
       is_weight_tail(after.substr(1))))
    return {Part::kMagnitude, std::string(before)};
  if (split(".modules_to_save.", before, after)) {
    const std::size_t dot = after.rfind('.');
    const std::string_view leaf = dot == std::string_view::npos ? after : after.substr(dot + 1);
    if (leaf == "weight" || leaf == "bias")
      return {Part::kWhole, std::string(before) + "." + std::string(leaf)};
    return {};
  }
  if (name.find("lora_") != std::string_view::npos ||
      name.find(".base_layer.") != std::string_view::npos)
    return {};
  if (name.ends_with(".weight") || name.ends_with(".bias"))
    return {Part::kWhole, std::string(name)};
  return {};
}

/// The number after "layers." or -1.
std::int64_t layer_of(std::string_view module) {
  const std::size_t at = module.find("layers.");
  if (at == std::string_view::npos) return -1;
  std::int64_t layer = -1;
  const char* begin = module.data() + at + 7;
  const auto result = std::from_chars(begin, module.data() + module.size(), layer);
  return result.ec == std::errc() && layer >= 0 && layer < (1 << 20) ? layer : -1;
}

bool is_float(Dtype dtype) {
  return dtype == Dtype::kF32 || dtype == Dtype::kF16 || dtype == Dtype::kBF16 ||
         dtype == Dtype::kF64;
}

struct Halves {
  const StoredTensor *a = nullptr, *b = nullptr, *magnitude = nullptr;
};

void check_module(const std::string& name, const Halves& found, const PeftConfig& config,
                  ProblemList& problems, std::vector<PeftModule>& out) {
  if (found.a == nullptr || found.b == nullptr) {
    problems.add(format("{} has lora_{} but no lora_{}", name,
                        found.a   ? "A"
                        : found.b ? "B"
                                  : "magnitude_vector",
                        found.a ? "B" : "A"));
    return;
  }
  const auto &a = found.a->shape, &b = found.b->shape;
  if (a.size() != 2 || b.size() != 2 || a[0] != b[1] || a[0] < 1) {
    problems.add(format("{}: lora_A {} and lora_B {} do not fit, expected [r, in] and [out, r]",
                        name, shape_text(a), shape_text(b)));
    return;
  }
  const std::int64_t rank = config.rank_of(name);
  if (a[0] != rank)
    problems.add(format("{} has rank {}, but the config says {}", found.a->name, a[0], rank));
  if (config.dora && found.magnitude == nullptr)
    problems.add(format("{}: use_dora is true, but there is no lora_magnitude_vector", name));
  if (found.magnitude != nullptr) {
    std::int64_t count = 1;
    for (const std::int64_t size : found.magnitude->shape) count *= size;
    if (!config.dora)
      problems.add(format("{} is there, but use_dora is false", found.magnitude->name));
    if (count != b[0] || found.magnitude->shape.size() != 1)
      problems.add(format("{} is {}, expected [{}]", found.magnitude->name,
                          shape_text(found.magnitude->shape), b[0]));
  }
  PeftModule module;
  module.name = name;
  module.a = *found.a, module.b = *found.b;
  if (found.magnitude != nullptr) module.magnitude = *found.magnitude;
  module.rank = a[0];
  module.alpha = config.alpha_of(name);
  module.scale = config.scale_of(name);
  out.push_back(std::move(module));
}

}  // namespace

bool PeftFolder::is_one(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / kConfig, ignored);
}

PeftFolder PeftFolder::open(const fs::path& folder) {
  std::error_code ignored;
  if (!is_one(folder)) {
    throw Error(ErrorKind::kInput, folder.string(), format("has no {}", kConfig))
        .hint("give the folder that PEFT's save_pretrained or `espalier finetune` wrote");
  }
  PeftFolder out;
  out.path_ = folder;
  out.config_ =
      parse_peft_config(read_file(folder / kConfig, 16u << 20), (folder / kConfig).string());
  if (!fs::is_regular_file(folder / kWeights, ignored)) {
    const bool pickle = fs::is_regular_file(folder / "adapter_model.bin", ignored);
    throw Error(pickle ? ErrorKind::kUnsupported : ErrorKind::kInput, folder.string(),
                pickle ? "holds adapter_model.bin only, a pickle that can run code"
                       : format("has no {}", kWeights))
        .hint(pickle ? "save it again with PEFT: model.save_pretrained(DIR, "
                       "safe_serialization=True)"
                     : "the adapter's download may be incomplete");
  }
  const SafetensorsFile file = SafetensorsFile::open(folder / kWeights);
  ProblemList problems(ErrorKind::kInput, folder.string());
  std::map<std::pair<std::int64_t, std::string>, Halves> modules;
  std::map<std::string, StoredTensor> saved;
  for (const StoredTensor& tensor : file.tensors()) {
    const ParsedName name = parse_name(tensor.name);
    if (!is_float(tensor.dtype)) {
      problems.add(format("{} is {}, expected F32, F16, BF16 or F64", tensor.name,
                          safetensors_name(tensor.dtype)));
      continue;
    }
    if (name.part == Part::kUnknown) {
      problems.add(format("{} is no low-rank tensor of a linear layer", tensor.name));
      continue;
    }
    if (name.part == Part::kWhole) {
      if (!saved.emplace(name.module, tensor).second)
        problems.add(format("{} appears twice", name.module));
      continue;
    }
    Halves& halves = modules[{layer_of(name.module), name.module}];
    const StoredTensor*& slot = name.part == Part::kA   ? halves.a
                                : name.part == Part::kB ? halves.b
                                                        : halves.magnitude;
    if (slot != nullptr) problems.add(format("{} appears twice", tensor.name));
    slot = &tensor;
  }
  for (const auto& [key, halves] : modules)
    check_module(key.second, halves, out.config_, problems, out.modules_);
  if (problems.empty() && out.modules_.empty() && saved.empty())
    problems.add(format("{} holds no tensors", kWeights));
  problems.throw_if_any();
  out.saved_.assign(saved.begin(), saved.end());
  return out;
}

std::int64_t PeftFolder::layers() const {
  std::int64_t highest = -1;
  for (const PeftModule& module : modules_) highest = std::max(highest, layer_of(module.name));
  for (const auto& [name, tensor] : saved_) highest = std::max(highest, layer_of(name));
  return highest + 1;
}

std::int64_t PeftFolder::tensor_count() const {
  std::int64_t count = static_cast<std::int64_t>(saved_.size());
  for (const PeftModule& module : modules_) count += module.magnitude ? 3 : 2;
  return count;
}

void write_peft_folder(const fs::path& folder, const PeftConfig& config,
                       const std::map<std::string, at::Tensor>& tensors) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors) {
    ESPALIER_ASSERT(tensor.is_contiguous() && tensor.device().is_cpu());
    plan.push_back(
        {std::string(kPrefix) + name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(folder / kWeights, std::move(plan));
  for (const auto& [name, tensor] : tensors) writer.append(tensor_bytes(tensor));
  writer.finish();
  write_file_atomically(folder / kConfig, peft_config_text(config));
}

}  // namespace espalier
