// See scratch_model.h.
#include "espalier/methods/layer_pruning/scratch_model.h"

#include <map>
#include <numeric>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/hf_folder.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/surgery/write_model.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

/// The value of a norm's weight at which it changes nothing: gemma's multiply by 1 + w.
double identity_of_norms(const Json& config) {
  const auto type = config.find("model_type");
  return type != config.end() && type->is_string() && type->get<std::string>().starts_with("gemma")
             ? 0
             : 1;
}

double initializer_range(const Json& config) {
  const auto range = config.find("initializer_range");
  return range != config.end() && range->is_number() && range->get<double>() > 0
             ? range->get<double>()
             : 0.02;
}

}  // namespace

void write_scratch_model(const fs::path& source, std::int64_t layers, const fs::path& destination,
                         std::uint64_t seed, Reporter& reporter, const StopToken& stop) {
  const fs::path shapes = destination.string() + ".shapes";
  fs::remove_all(shapes);
  fs::create_directories(shapes);
  std::vector<std::int64_t> kept(static_cast<std::size_t>(layers));
  std::iota(kept.begin(), kept.end(), 0);
  if (fs::is_directory(source)) {
    prune_hf_folder(source, kept, shapes, reporter, stop);
  } else {
    convert_to_hf(source, shapes, Dtype::kF32, reporter, kept, stop);
  }
  const HfFolder folder = HfFolder::open(shapes);
  const Json config = parse_json(folder.config_text(), "config.json");
  const double norm = identity_of_norms(config), range = initializer_range(config);
  std::map<std::string, at::Tensor> weights;
  for (const StoredTensor& stored : folder.tensors()) {
    if (stop.stop_requested()) throw Interrupted{};
    const Dtype dtype = stored.dtype;
    if (dtype != Dtype::kF32 && dtype != Dtype::kBF16 && dtype != Dtype::kF16) {
      throw Error(ErrorKind::kUnsupported, source.string(),
                  format("{} is stored as {}; a model from scratch needs plain float weights",
                         stored.name, dtype_name(dtype)));
    }
    at::Tensor value;
    if (stored.shape.size() > 1) {
      value =
          at::randn(stored.shape, make_generator(seed, stored.name, 0, 0, at::kCPU), at::kFloat) *
          range;
    } else {
      value = at::full(stored.shape, stored.name.ends_with("bias") ? 0.0 : norm, at::kFloat);
    }
    weights[stored.name] = value.to(to_scalar_type(dtype)).contiguous();
  }
  fs::create_directories(destination);
  write_hf_with_replacements(shapes, weights, destination, reporter);
  fs::remove_all(shapes);
}

}  // namespace espalier::layer_pruning
