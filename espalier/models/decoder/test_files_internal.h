// Tiny decoder files for the tests of this module: a folder or a GGUF made of given tensors.
// Internal.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include <ATen/ATen.h>

#include "espalier/io/gguf.h"
#include "espalier/io/safetensors.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::decoder_test {

using Tensors = std::map<std::string, at::Tensor>;

/// A folder that is removed with this object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "espalier_decoder_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline Tensors random_tensors(const DecoderConfig& config, at::ScalarType type = at::kFloat) {
  at::manual_seed(11);
  Tensors out;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    const at::Tensor noise = at::randn(spec.shape) * 0.2;
    out[spec.name] = (spec.shape.size() == 1 ? 1 + noise : noise).to(type);
  }
  return out;
}

inline void write_folder(const std::filesystem::path& folder, const std::string& config_json,
                         const Tensors& tensors) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config_json;
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors)
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(folder / "model.safetensors", plan);
  for (const auto& [name, tensor] : tensors) writer.append(tensor_bytes(tensor.contiguous()));
  writer.finish();
}

/// F32 GGUF with the rows of q and k in the order of llama-arch files (when `permute`).
inline void write_gguf(const std::filesystem::path& file, const DecoderConfig& config,
                       const std::string& arch, const Tensors& tensors,
                       std::vector<std::pair<std::string, GgufValue>> extra = {},
                       bool permute = true) {
  const auto u32 = [](std::int64_t v) { return GgufValue::u32(static_cast<std::uint32_t>(v)); };
  std::vector<std::pair<std::string, GgufValue>> keys{
      {"general.architecture", GgufValue::string(arch)},
      {arch + ".block_count", u32(config.num_layers)},
      {arch + ".context_length", u32(config.context_length)},
      {arch + ".embedding_length", u32(config.hidden_size)},
      {arch + ".feed_forward_length", u32(config.intermediate_size)},
      {arch + ".attention.head_count", u32(config.num_heads)},
      {arch + ".attention.head_count_kv", u32(config.num_kv_heads)},
      {arch + ".attention.key_length", u32(config.head_dim)},
      {arch + ".attention.value_length", u32(config.head_dim)},
      {arch + ".attention.layer_norm_rms_epsilon",
       GgufValue::f32(static_cast<float>(config.rms_norm_eps))},
      {arch + ".rope.freq_base", GgufValue::f32(static_cast<float>(config.rope_theta))},
  };
  for (auto& pair : extra) {
    std::erase_if(keys, [&](const auto& key) { return key.first == pair.first; });
    keys.push_back(std::move(pair));
  }
  std::vector<GgufTensorPlan> plan;
  std::vector<at::Tensor> data;
  for (const auto& [name, tensor] : tensors) {
    const std::string known = gguf_name_of(name, config.family),
                      gguf_name = known.empty() ? name : known;
    plan.push_back({gguf_name, GgufType::kF32, tensor.sizes().vec()});
    at::Tensor rows = tensor.to(at::kFloat);
    const bool q = name.find(".q_proj.") != std::string::npos,
               k = name.find(".k_proj.") != std::string::npos;
    if (permute && (q || k)) {
      rows = rows.index_select(
          0, at::tensor(gguf_rope_rows(q ? config.num_heads : config.num_kv_heads, config.head_dim),
                        at::kLong));
    }
    data.push_back(rows.contiguous());
  }
  GgufWriter writer(file, keys, plan);
  for (const at::Tensor& tensor : data) writer.append(tensor_bytes(tensor));
  writer.finish();
}

}  // namespace espalier::decoder_test
