// A decoder's weights in whatever file they lie, under their Hugging Face names, loaded tensor by
// tensor on demand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/kernels/nf4/nf4.h"
#include "espalier/models/decoder/config.h"

namespace espalier {

/// A tensor as it lies in its file. safetensors' F32, F16 and BF16 have the layout of the GGUF
/// types of that name.
struct StoredWeight {
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;  // row-major, outermost first
  std::span<const std::byte> data;
  std::shared_ptr<const MappedFile> file;
  /// Heads whose rows are interleaved as in llama-arch GGUF files (attn_q, attn_k); 0 = rows in
  /// Hugging Face order.
  std::int64_t permuted_heads = 0;
  /// What the stored values are above those under the Hugging Face name (gguf_stores_plus_one).
  float offset = 0;
};

class DecoderCheckpoint {
 public:
  virtual ~DecoderCheckpoint() = default;
  /// Opens a folder or .gguf and checks that every tensor of the config is there with the right
  /// shape, nothing is left over, and layers are contiguous; all problems in one Error(kInput).
  /// Reads headers only.
  static std::unique_ptr<DecoderCheckpoint> open(const std::filesystem::path& folder_or_gguf);

  const DecoderConfig& config() const { return config_; }
  virtual bool has(std::string_view hf_name) const = 0;
  /// The tensor in `type` on `device`, rows in Hugging Face order. Zero-copy view of the mapped
  /// file when the stored dtype is `type` and the device is the CPU (safetensors): such a tensor
  /// must not be written to. Otherwise converted or dequantised (GGUF q/k rows un-permuted for
  /// llama). Throws Error(kInput) when there is no such tensor.
  virtual at::Tensor load(std::string_view hf_name, at::ScalarType type,
                          at::Device device) const = 0;
  /// The weight as NF4 when the folder holds it so (bitsandbytes), on `device`; null otherwise.
  /// `load` gives its dequantised values.
  virtual std::shared_ptr<const Nf4Weight> load_nf4(std::string_view, at::Device) const {
    return nullptr;
  }
  /// The bytes as they lie. Throws Error(kInput) when absent, Error(kUnsupported) for element types
  /// without GGUF twin.
  virtual StoredWeight stored(std::string_view hf_name) const = 0;
  /// Drops the pages of layer `index`, or of the tensors outside layers (-1), from this process's
  /// resident set (streaming a model larger than RAM).
  virtual void release_layer(std::int64_t index) const = 0;
  virtual const std::filesystem::path& path() const = 0;

 protected:
  DecoderConfig config_;
};

/// "model.layers.3.self_attn.q_proj.weight" <-> "blk.3.attn_q.weight". Empty when there is no
/// counterpart. Families differ in their norms (gemma2's and olmo2's post_attention_layernorm is
/// not llama's) and in phi3's fused matrices.
std::string gguf_name_of(std::string_view hf_name, DecoderFamily family = DecoderFamily::kLlama);
std::string hf_name_of(std::string_view gguf_name, DecoderFamily family = DecoderFamily::kLlama);

/// Whether GGUF files hold this tensor plus one: gemma's norms, which multiply by 1 + weight.
bool gguf_stores_plus_one(const DecoderConfig& config, std::string_view hf_name);

/// Row order of attn_q / attn_k in llama-arch GGUF files: GGUF row h*D+2j+t holds HF row h*D +
/// t*D/2 + j. Returns for each GGUF row its HF row.
std::vector<std::int64_t> gguf_rope_rows(std::int64_t heads, std::int64_t head_dim);

}  // namespace espalier
