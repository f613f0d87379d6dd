// Hugging Face folders and GGUF files behind one interface.
#include "espalier/models/decoder/checkpoint.h"

#include <cstring>
#include <map>
#include <set>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/models/decoder/bnb_weights.h"
#include "espalier/models/decoder/check_tensors.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

[[noreturn]] void throw_missing(const std::filesystem::path& path, std::string_view name) {
  throw Error(ErrorKind::kInput, path.string(), format("has no tensor {}", name));
}

void throw_problems(const std::filesystem::path& path, const std::vector<std::string>& problems) {
  ProblemList list(ErrorKind::kInput, path.string());
  for (const std::string& problem : problems) list.add(problem);
  list.throw_if_any(format("`espalier verify {}` lists what the files hold", path.string()));
}

class HfCheckpoint final : public DecoderCheckpoint {
 public:
  explicit HfCheckpoint(const std::filesystem::path& folder) : folder_(HfFolder::open(folder)) {
    config_ = parse_hf_decoder_config(folder_.config_text(), (folder / "config.json").string());
    read_generation_config();
    std::vector<FoundTensor> found;
    std::vector<std::string> problems;
    bnb_ = BnbWeights::collect(folder_.tensors(), problems);
    throw_problems(folder, problems);
    for (const std::string& name : bnb_.names()) found.push_back({name, name, bnb_.shape(name)});
    for (const StoredTensor& tensor : folder_.tensors()) {
      if (!bnb_.owns(tensor.name)) found.push_back({tensor.name, tensor.name, tensor.shape});
      by_layer_[layer_of_tensor(tensor.name)].push_back(&tensor);
    }
    problems = check_decoder_tensors(config_, found, [](const std::string& name) { return name; });
    for (const StoredTensor& tensor : folder_.tensors()) {
      if (!is_float(tensor.dtype) && !bnb_.owns(tensor.name) &&
          layer_of_tensor(tensor.name) < config_.num_layers) {
        problems.push_back(format("{} is {}, expected F32, F16, BF16 or F64", tensor.name,
                                  safetensors_name(tensor.dtype)));
      }
    }
    throw_problems(folder, problems);
  }

  bool has(std::string_view name) const override { return folder_.find(name) != nullptr; }

  at::Tensor load(std::string_view name, at::ScalarType type, at::Device device) const override {
    if (bnb_.has(name)) return nf4_dequantize(bnb_.load(name), type).to(device);
    const StoredTensor& tensor = find(name);
    // The data of a file with an odd header length is misaligned; libtorch's kernels then need a
    // copy.
    const bool aligned = reinterpret_cast<std::uintptr_t>(tensor.data.data()) %
                             static_cast<std::uintptr_t>(dtype_size(tensor.dtype)) ==
                         0;
    at::Tensor out;
    if (aligned) {
      out = view_bytes(tensor.data, tensor.dtype, tensor.shape, tensor.file);
    } else {
      out = at::empty(tensor.shape, to_scalar_type(tensor.dtype));
      std::memcpy(out.data_ptr(), tensor.data.data(), tensor.data.size());
    }
    const at::Tensor loaded = out.to(device, type);
    // A copy was made: the file's pages would only stand beside it.
    if (loaded.const_data_ptr() != tensor.data.data()) tensor.file->release(tensor.data);
    return loaded;
  }

  std::shared_ptr<const Nf4Weight> load_nf4(std::string_view name,
                                            at::Device device) const override {
    return bnb_.has(name) ? std::make_shared<Nf4Weight>(bnb_.load(name).to(device)) : nullptr;
  }

  StoredWeight stored(std::string_view name) const override {
    const StoredTensor& tensor = find(name);
    if (bnb_.has(name))
      throw Error(ErrorKind::kUnsupported, tensor.name,
                  "is stored as bitsandbytes' nf4, which has no GGUF twin");
    StoredWeight weight{GgufType::kF32, tensor.shape, tensor.data, tensor.file};
    switch (tensor.dtype) {
      case Dtype::kF32:
        weight.type = GgufType::kF32;
        break;
      case Dtype::kF16:
        weight.type = GgufType::kF16;
        break;
      case Dtype::kBF16:
        weight.type = GgufType::kBF16;
        break;
      default:
        throw Error(
            ErrorKind::kUnsupported, tensor.name,
            format("is stored as {}, expected F32, F16 or BF16", safetensors_name(tensor.dtype)));
    }
    return weight;
  }

  void release_layer(std::int64_t index) const override {
    const auto it = by_layer_.find(index);
    if (it == by_layer_.end()) return;
    for (const StoredTensor* tensor : it->second) tensor->file->release(tensor->data);
  }

  const std::filesystem::path& path() const override { return folder_.path(); }

 private:
  static bool is_float(Dtype dtype) {
    return dtype == Dtype::kF32 || dtype == Dtype::kF16 || dtype == Dtype::kBF16 ||
           dtype == Dtype::kF64;
  }

  const StoredTensor& find(std::string_view name) const {
    const StoredTensor* tensor = folder_.find(name);
    if (tensor == nullptr) throw_missing(folder_.path(), name);
    return *tensor;
  }

  /// transformers stops at the ids of generation_config.json when there is one, and at
  /// config.json's otherwise.
  void read_generation_config() {
    const std::filesystem::path file = folder_.path() / "generation_config.json";
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored)) return;
    const Json json = read_json_file(file);
    const auto it = json.is_object() ? json.find("eos_token_id") : json.end();
    if (!json.is_object() || it == json.end()) return;
    std::vector<std::int64_t> ids;
    if (it->is_number_integer()) ids.push_back(it->get<std::int64_t>());
    if (it->is_array()) {
      for (const Json& id : *it) {
        if (id.is_number_integer()) ids.push_back(id.get<std::int64_t>());
      }
    }
    if (!ids.empty()) config_.eos_token_ids = ids;
  }

  HfFolder folder_;
  BnbWeights bnb_;
  std::map<std::int64_t, std::vector<const StoredTensor*>> by_layer_;
};

class GgufCheckpoint final : public DecoderCheckpoint {
 public:
  explicit GgufCheckpoint(const std::filesystem::path& path) : file_(GgufFile::open(path)) {
    config_ = parse_gguf_decoder_config(file_);
    std::vector<FoundTensor> found;
    for (const GgufTensor& tensor : file_.tensors()) {
      found.push_back({hf_name_of(tensor.name, config_.family), tensor.name, tensor.shape});
      by_layer_[layer_of_tensor(tensor.name)].push_back(&tensor);
    }
    throw_problems(path, check_decoder_tensors(config_, found, [&](const std::string& name) {
                     return gguf_name_of(name, config_.family);
                   }));
  }

  bool has(std::string_view name) const override { return look_up(name) != nullptr; }

  at::Tensor load(std::string_view name, at::ScalarType type, at::Device device) const override {
    const StoredWeight weight = stored(name);
    const std::int64_t rows = weight.shape.size() > 1 ? weight.shape.front() : 1;
    at::Tensor out = at::empty(weight.shape, at::kFloat);
    const std::int64_t columns = rows == 0 ? 0 : out.numel() / rows;
    if (weight.permuted_heads != 0 && weight.shape.size() == 1)
      return load_permuted_vector(weight, type, device);
    std::vector<std::int64_t> order;
    if (weight.permuted_heads != 0)
      order = gguf_rope_rows(weight.permuted_heads, rows / weight.permuted_heads);
    const auto row_bytes = static_cast<std::size_t>(gguf_bytes(weight.type, columns));
    float* values = out.data_ptr<float>();
    at::parallel_for(
        0, rows, std::max<std::int64_t>(1, 65536 / std::max<std::int64_t>(columns, 1)),
        [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t to = order.empty() ? row : order[static_cast<std::size_t>(row)];
            dequantize(weight.type,
                       weight.data.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes),
                       std::span<float>(values + to * columns, static_cast<std::size_t>(columns)));
          }
        });
    weight.file->release(weight.data);
    if (weight.offset != 0) out.sub_(weight.offset);
    return out.to(device, type);
  }

  StoredWeight stored(std::string_view name) const override {
    const GgufTensor* tensor = look_up(name);
    if (tensor == nullptr) throw_missing(file_.path(), name);
    StoredWeight weight{tensor->type, tensor->shape, tensor->data, tensor->file};
    if (config_.family == DecoderFamily::kLlama) {
      if (name.find(".self_attn.q_proj.") != std::string_view::npos)
        weight.permuted_heads = config_.num_heads;
      if (name.find(".self_attn.k_proj.") != std::string_view::npos)
        weight.permuted_heads = config_.num_kv_heads;
    }
    if (gguf_stores_plus_one(config_, name)) weight.offset = 1;
    return weight;
  }

  void release_layer(std::int64_t index) const override {
    const auto it = by_layer_.find(index);
    if (it == by_layer_.end()) return;
    for (const GgufTensor* tensor : it->second) tensor->file->release(tensor->data);
  }

  const std::filesystem::path& path() const override { return file_.path(); }

 private:
  const GgufTensor* look_up(std::string_view hf_name) const {
    return file_.find_tensor(gguf_name_of(hf_name, config_.family));
  }

  static at::Tensor load_permuted_vector(const StoredWeight& weight, at::ScalarType type,
                                         at::Device device) {
    std::vector<float> values(static_cast<std::size_t>(weight.shape.front()));
    dequantize(weight.type, weight.data, values);
    at::Tensor out = at::empty(weight.shape, at::kFloat);
    const auto order =
        gguf_rope_rows(weight.permuted_heads, weight.shape.front() / weight.permuted_heads);
    for (std::size_t i = 0; i < values.size(); ++i) out.data_ptr<float>()[order[i]] = values[i];
    return out.to(device, type);
  }

  GgufFile file_;
  std::map<std::int64_t, std::vector<const GgufTensor*>> by_layer_;
};

}  // namespace

std::unique_ptr<DecoderCheckpoint> DecoderCheckpoint::open(
    const std::filesystem::path& folder_or_gguf) {
  std::error_code ignored;
  try {
    if (std::filesystem::is_directory(folder_or_gguf, ignored))
      return std::make_unique<HfCheckpoint>(folder_or_gguf);
    return std::make_unique<GgufCheckpoint>(folder_or_gguf);
  } catch (Error& error) {
    throw std::move(error).during(format("opening the decoder {}", folder_or_gguf.string()));
  }
}

}  // namespace espalier
