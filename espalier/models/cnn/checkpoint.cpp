// Files of a CNN: folders of ours, single files of safetensors or torch.save under public names.
#include <set>

#include <ATen/ops/isfinite.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/io/safetensors.h"
#include "espalier/io/torch_pickle.h"
#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/checkpoint_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::string_view kWeightsFile = "model.safetensors";
constexpr std::size_t kMaxProblems = 10'000;  // all of them: nets have a few thousand tensors

TensorMap read_safetensors(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  TensorMap tensors;
  for (const StoredTensor& stored : file.tensors())
    tensors.emplace(stored.name, view_bytes(stored.data, stored.dtype, stored.shape, stored.file));
  return tensors;
}

/// A single file. Its name decides: a safetensors header may start like a pickle by chance.
TensorMap read_file_tensors(const std::filesystem::path& path) {
  if (path.extension() == ".safetensors" || !is_torch_pickle(path)) return read_safetensors(path);
  return load_torch_pickle(path).tensors;
}

TensorMap without_prefix(const TensorMap& tensors, std::string_view prefix) {
  TensorMap inner;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with(prefix)) inner.emplace(name.substr(prefix.size()), tensor);
  return inner;
}

/// Size of one dimension of the first of `names` that is there with `dims` dimensions, else
/// `fallback`.
std::int64_t size_of(const TensorMap& tensors, std::initializer_list<std::string_view> names,
                     std::int64_t dims, std::int64_t dim, std::int64_t fallback) {
  for (const std::string_view name : names) {
    const auto it = tensors.find(name);
    if (it != tensors.end() && it->second.dim() == dims && it->second.size(dim) > 0)
      return it->second.size(dim);
  }
  return fallback;
}

void check_finite(const std::string& name, const at::Tensor& tensor, ProblemList& problems) {
  const at::Tensor bad = at::isfinite(tensor).logical_not();
  if (const auto count = bad.sum().item<std::int64_t>(); count > 0)
    problems.add(format("{} holds {} NaN or infinite value{}", name, count, count == 1 ? "" : "s"));
}

/// Why the tensors may not fit: VGG has two classifiers, depths differ.
std::string layout_hint(const CnnConfig& config, const TensorMap& tensors) {
  if (config.family == CnnFamily::kVgg) {
    const bool imagenet = arch_of(config).imagenet, found = tensors.contains("classifier.0.weight");
    const std::string base = config.arch.substr(0, 8);
    if (found && !imagenet)
      return format("this is torchvision's layout: pass --arch {}_4096", base);
    if (!found && imagenet) return format("this is CIFAR's layout: pass --arch {}", base);
  }
  return format("expected is a {} with {} layers per stage", config.arch,
                stage_counts_text(config));
}

}  // namespace

TensorMap unwrapped(TensorMap tensors) {
  for (const std::string_view outer : {"state_dict.", "model.", "net."}) {
    if (TensorMap inner = without_prefix(tensors, outer); !inner.empty()) {
      tensors = std::move(inner);
      break;
    }
  }
  TensorMap inner = without_prefix(tensors, "module.");
  return inner.empty() ? tensors : inner;
}

CnnConfig config_of_tensors(const std::string& arch, const TensorMap& tensors) {
  const std::int64_t classes =
      size_of(tensors, {"linear.weight", "fc.weight", "classifier.6.weight", "classifier.weight"},
              2, 0, 10);
  CnnConfig config = cnn_config(arch, classes);
  config.in_channels =
      size_of(tensors, {"conv1.weight", "features.0.weight", "stem.0.weight"}, 4, 1, 3);
  if (config.in_channels != 3) {
    // Nobody has published a normalisation for these.
    config.mean.assign(static_cast<std::size_t>(config.in_channels), 0.5);
    config.std.assign(static_cast<std::size_t>(config.in_channels), 0.25);
  }
  return config;
}

void fill_from(Cnn& net, const TensorMap& tensors, std::string_view source) {
  ProblemList problems(ErrorKind::kInput, std::string(source));
  std::set<std::string> wanted;
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& slot) {
    wanted.insert(name);
    const bool counter = name.ends_with(".num_batches_tracked");
    const auto it = tensors.find(name);
    if (it == tensors.end()) {
      if (!counter) problems.add(format("{} is missing", name));
      return;
    }
    const at::Tensor& found = it->second;
    if (counter && found.numel() == 1 && at::isIntegralType(found.scalar_type(), false)) {
      slot = found.reshape({}).to(at::kLong, false, true);
    } else if (found.sizes() != slot.sizes()) {
      problems.add(format("{} has shape {}, expected {}", name, shape_text(found.sizes()),
                          shape_text(slot.sizes())));
    } else if (counter || !at::isFloatingType(found.scalar_type())) {
      problems.add(format("{} holds {}, expected {}", name,
                          dtype_name(to_dtype(found.scalar_type())),
                          counter ? "an integer" : "floating-point numbers"));
    } else {
      // A copy: what the file maps must not be written to.
      slot = found.to(at::kFloat, false, true).contiguous();
      check_finite(name, slot, problems);
    }
  });
  for (const auto& [name, tensor] : tensors)
    if (!wanted.contains(name)) problems.add(format("{} is not expected", name));
  problems.throw_if_any(layout_hint(net.config(), tensors), kMaxProblems);
}

Cnn Cnn::load(const std::filesystem::path& path, const std::string& arch) {
  if (std::filesystem::is_directory(path)) {
    const std::filesystem::path file = path / "config.json";
    const CnnConfig config = parse_cnn_config(read_file(file, 1u << 24), file.string());
    if (!arch.empty() && arch != config.arch) {
      throw Error(ErrorKind::kUsage, "--arch",
                  format("`{}` was given, but {} is a {}", arch, path.string(), config.arch))
          .hint("leave --arch out: a folder says what it is");
    }
    Cnn net(config);
    fill_from(net, read_safetensors(path / kWeightsFile), (path / kWeightsFile).string());
    return net;
  }
  if (arch.empty()) {
    throw Error(ErrorKind::kUsage, path.string(),
                "a single file does not say which network it holds")
        .hint("pass --arch, for example --arch resnet56");
  }
  const TensorMap tensors = unwrapped(read_file_tensors(path));
  Cnn net(config_of_tensors(arch, tensors));
  fill_from(net, tensors, path.string());
  return net;
}

void Cnn::save(const std::filesystem::path& folder) const {
  std::filesystem::create_directories(folder);
  Cnn net = *this;
  std::vector<TensorPlan> plan;
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) {
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  });
  SafetensorsWriter writer(folder / kWeightsFile, std::move(plan));
  for_each_tensor(net, "", [&](const std::string&, at::Tensor& tensor) {
    writer.append(tensor_bytes(tensor.detach().cpu().contiguous()));
  });
  writer.finish();
  write_file_atomically(folder / "config.json", cnn_config_json(config_));
}

}  // namespace espalier
