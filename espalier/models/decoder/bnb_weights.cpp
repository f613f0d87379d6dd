// See bnb_weights.h. Layout: `X.weight` (nibbles), `X.weight.absmax`, `.quant_map`, with double
// quantisation `.nested_absmax` and `.nested_quant_map`, and `.quant_state.bitsandbytes__nf4`, JSON
// in a uint8 tensor.
#include "espalier/models/decoder/bnb_weights.h"

#include <cmath>
#include <cstring>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::string_view kState = ".quant_state.bitsandbytes__";
constexpr std::size_t kMaxState = 1 << 16;
constexpr std::int64_t kMaxSide = std::int64_t{1} << 27;
constexpr const char* kCompanions[]{".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"};

using Names = std::map<std::string, const StoredTensor*, std::less<>>;

const StoredTensor* find(const Names& names, const std::string& name) {
  const auto it = names.find(name);
  return it == names.end() ? nullptr : it->second;
}

/// Elements as an owned tensor, whatever the alignment of the file.
at::Tensor copied(const StoredTensor& tensor) {
  at::Tensor out = at::empty({tensor.numel()}, to_scalar_type(tensor.dtype));
  if (!tensor.data.empty()) std::memcpy(out.data_ptr(), tensor.data.data(), tensor.data.size());
  return out;
}

std::int64_t positive(const Json& state, const char* key, std::int64_t fallback) {
  const auto it = state.find(key);
  if (it == state.end()) return fallback;
  return it->is_number_integer() ? it->get<std::int64_t>() : -1;
}

bool read_shape(const Json& state, std::vector<std::int64_t>& shape) {
  const auto it = state.find("shape");
  if (it == state.end() || !it->is_array() || it->size() != 2) return false;
  for (const Json& size : *it) {
    if (!size.is_number_integer()) return false;
    const auto value = size.get<std::int64_t>();
    if (value < 1 || value > kMaxSide) return false;
    shape.push_back(value);
  }
  return true;
}

bool is_block(std::int64_t size) { return size >= 32 && size <= 4096 && (size & (size - 1)) == 0; }

/// "" when `tensor` is there with this type and number of elements.
std::string wrong_tensor(const StoredTensor* tensor, const std::string& name, Dtype dtype,
                         std::int64_t numel) {
  if (tensor == nullptr) return format("{} is missing", name);
  if (tensor->dtype != dtype || tensor->numel() != numel) {
    return format("{} is {} of {} elements, expected {} of {}", name,
                  safetensors_name(tensor->dtype), tensor->numel(), safetensors_name(dtype), numel);
  }
  return "";
}

std::string_view quant_method(const Json& config) {
  const auto it = config.find("quant_method");
  if (it != config.end() && it->is_string()) return it->get_ref<const std::string&>();
  // Files older than that key are bitsandbytes' own.
  return config.contains("load_in_4bit") || config.contains("load_in_8bit") ? "bitsandbytes"
                                                                            : "unknown";
}

}  // namespace

void check_bnb_config(std::string_view quantization_config, std::string_view source) {
  const Json config = parse_json(quantization_config, source);
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::kUnsupported, source, "quantization_config: " + what)
        .hint("use the unquantised folder, or a GGUF file of the model");
  };
  if (!config.is_object()) refuse("is not an object");
  const std::string method(quant_method(config));
  if (method != "bitsandbytes")
    refuse(format("the weights are stored with \"{}\", we have bitsandbytes' nf4", method));
  const auto flag = [&](const char* key) {
    const auto it = config.find(key);
    return it != config.end() && it->is_boolean() && it->get<bool>();
  };
  if (flag("load_in_8bit") || flag("_load_in_8bit"))
    refuse("the weights are bitsandbytes' int8, we have its nf4");
  const auto type = config.find("bnb_4bit_quant_type");
  const std::string kind =
      type != config.end() && type->is_string() ? type->get<std::string>() : "fp4";
  if (kind != "nf4") refuse(format("the weights are bitsandbytes' {}, we have its nf4", kind));
}

std::string BnbWeights::check(const std::string& name, const StoredTensor& stored,
                              const Names& names, Stored& out) {
  if (stored.dtype != Dtype::kU8 || stored.data.size() > kMaxState)
    return format("{} is not a short text", stored.name);
  Json state;
  try {
    state = parse_json({reinterpret_cast<const char*>(stored.data.data()), stored.data.size()},
                       stored.name);
  } catch (const Error& error) {
    return format("{}: {}", stored.name, error.message());
  }
  Nf4Weight& layout = out.layout;
  if (!state.is_object() || !read_shape(state, layout.shape))
    return format("{} names no shape of two sizes", stored.name);
  layout.block = positive(state, "blocksize", 64);
  if (!is_block(layout.block))
    return format("{}: blocksize is not a power of two in 32-4096", stored.name);
  const std::string dtype = state.value("dtype", std::string("float32"));
  const auto rounding = parse_dtype(dtype);
  if (!rounding ||
      (*rounding != Dtype::kF32 && *rounding != Dtype::kF16 && *rounding != Dtype::kBF16))
    return format("{}: dtype is \"{}\"", stored.name, dtype);
  layout.rounding = to_scalar_type(*rounding);

  out.packed = find(names, name);
  const std::int64_t bytes = (layout.numel() + 1) / 2, blocks = layout.blocks();
  if (out.packed == nullptr) return format("{} is missing", name);
  // The nibbles may be stored as another type of the same bytes (bnb_4bit_quant_storage).
  if (static_cast<std::int64_t>(out.packed->data.size()) != bytes)
    return format("{} has {} bytes, {} of NF4 take {}", name, out.packed->data.size(),
                  shape_text(layout.shape), bytes);
  const StoredTensor* map = find(names, name + ".quant_map");
  if (std::string wrong = wrong_tensor(map, name + ".quant_map", Dtype::kF32, 16); !wrong.empty())
    return wrong;
  for (std::size_t i = 0; i < 16; ++i) {
    float level = 0;
    std::memcpy(&level, map->data.data() + i * sizeof(float), sizeof(float));
    if (!(std::fabs(level - nf4_levels()[i]) <= 1e-6f))
      return format("{}.quant_map holds levels of its own: number {} is {}, NF4's is {}", name, i,
                    level, nf4_levels()[i]);
  }
  out.absmax = find(names, name + ".absmax");
  out.nested_absmax = find(names, name + ".nested_absmax");
  if (out.nested_absmax == nullptr)
    return wrong_tensor(out.absmax, name + ".absmax", Dtype::kF32, blocks);

  layout.nested_block = positive(state, "nested_blocksize", 256);
  if (!is_block(layout.nested_block))
    return format("{}: nested_blocksize is not a power of two in 32-4096", stored.name);
  const auto offset = state.find("nested_offset");
  if (offset == state.end() || !offset->is_number())
    return format("{} names no nested_offset", stored.name);
  layout.nested_offset = static_cast<float>(offset->get<double>());
  out.nested_map = find(names, name + ".nested_quant_map");
  for (const std::string& wrong :
       {wrong_tensor(out.absmax, name + ".absmax", Dtype::kU8, blocks),
        wrong_tensor(out.nested_absmax, name + ".nested_absmax", Dtype::kF32,
                     (blocks + layout.nested_block - 1) / layout.nested_block),
        wrong_tensor(out.nested_map, name + ".nested_quant_map", Dtype::kF32, 256)}) {
    if (!wrong.empty()) return wrong;
  }
  return "";
}

BnbWeights BnbWeights::collect(const std::vector<StoredTensor>& tensors,
                               std::vector<std::string>& problems) {
  Names names;
  for (const StoredTensor& tensor : tensors) names.emplace(tensor.name, &tensor);
  BnbWeights out;
  for (const StoredTensor& tensor : tensors) {
    const std::size_t at = tensor.name.rfind(kState);
    if (at == std::string::npos) continue;
    const std::string name = tensor.name.substr(0, at),
                      kind = tensor.name.substr(at + kState.size());
    if (kind != "nf4") {
      problems.push_back(format("{} is stored as bitsandbytes' {}, we have its nf4", name, kind));
      continue;
    }
    Stored stored;
    if (std::string problem = check(name, tensor, names, stored); !problem.empty())
      problems.push_back(std::move(problem));
    else
      out.weights_.emplace(name, std::move(stored));
  }
  return out;
}

bool BnbWeights::owns(std::string_view tensor_name) const {
  if (has(tensor_name)) return true;
  if (const std::size_t at = tensor_name.rfind(kState); at != std::string_view::npos)
    return has(tensor_name.substr(0, at));
  for (const std::string_view companion : kCompanions) {
    if (tensor_name.ends_with(companion) &&
        has(tensor_name.substr(0, tensor_name.size() - companion.size())))
      return true;
  }
  return false;
}

const std::vector<std::int64_t>& BnbWeights::shape(std::string_view weight_name) const {
  const auto it = weights_.find(weight_name);
  ESPALIER_ASSERT(it != weights_.end());
  return it->second.layout.shape;
}

std::vector<std::string> BnbWeights::names() const {
  std::vector<std::string> list;
  for (const auto& [name, stored] : weights_) list.push_back(name);
  return list;
}

Nf4Weight BnbWeights::load(std::string_view weight_name) const {
  const auto it = weights_.find(weight_name);
  ESPALIER_ASSERT(it != weights_.end());
  const Stored& stored = it->second;
  Nf4Weight weight = stored.layout;
  weight.packed =
      view_bytes(stored.packed->data, Dtype::kU8,
                 {static_cast<std::int64_t>(stored.packed->data.size())}, stored.packed->file);
  weight.absmax = copied(*stored.absmax);
  if (stored.nested_absmax != nullptr) {
    weight.nested_absmax = copied(*stored.nested_absmax);
    weight.nested_map = copied(*stored.nested_map);
  }
  return weight;
}

}  // namespace espalier
