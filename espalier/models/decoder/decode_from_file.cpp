// Decoder::decode_from_file: the weights a second time, as the GGUF file holds them.
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "espalier/kernels/gguf_quants/gguf_matrix.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier {
namespace {

/// A copy with its rows in the order of Hugging Face (attn_q and attn_k of llama files).
void unpermute(GgufMatrix& matrix, std::int64_t heads) {
  const auto row_bytes = static_cast<std::size_t>(gguf_bytes(matrix.type, matrix.in));
  auto bytes = std::make_shared<std::vector<std::byte>>(matrix.data.size());
  const auto order = gguf_rope_rows(heads, matrix.out / heads);
  for (std::size_t row = 0; row < order.size(); ++row) {
    std::memcpy(bytes->data() + static_cast<std::size_t>(order[row]) * row_bytes,
                matrix.data.data() + row * row_bytes, row_bytes);
  }
  matrix.data = *bytes;
  matrix.owner = std::move(bytes);
}

std::shared_ptr<const GgufMatrix> stored_matrix(const DecoderCheckpoint& checkpoint,
                                                const std::string& name) {
  StoredWeight weight = checkpoint.stored(name);
  if (weight.shape.size() != 2 || weight.offset != 0) return nullptr;
  auto matrix = std::make_shared<GgufMatrix>(
      GgufMatrix{weight.type, weight.shape[0], weight.shape[1], weight.data, weight.file});
  if (weight.permuted_heads != 0) unpermute(*matrix, weight.permuted_heads);
  return matrix;
}

}  // namespace

void Decoder::decode_from_file() {
  const bool fits = residency_ == Residency::kResident && type_ == at::kFloat && device_.is_cpu() &&
                    checkpoint_ != nullptr && !std::filesystem::is_directory(checkpoint_->path());
  if (!fits) return;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const std::string prefix = layer_prefix(layer_ids_[i]);
    const auto attach = [&](Linear& linear, const char* name) {
      if (linear.weight.defined())
        linear.stored = stored_matrix(*checkpoint_, prefix + name + ".weight");
    };
    DecoderBlock& block = *blocks_[i];
    attach(block.self_attn.q_proj, "self_attn.q_proj");
    attach(block.self_attn.k_proj, "self_attn.k_proj");
    attach(block.self_attn.v_proj, "self_attn.v_proj");
    attach(block.self_attn.qkv_proj, "self_attn.qkv_proj");
    attach(block.self_attn.o_proj, "self_attn.o_proj");
    attach(block.mlp.gate_proj, "mlp.gate_proj");
    attach(block.mlp.up_proj, "mlp.up_proj");
    attach(block.mlp.gate_up_proj, "mlp.gate_up_proj");
    attach(block.mlp.down_proj, "mlp.down_proj");
  }
  stored_head_ = stored_matrix(
      *checkpoint_, config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
}

}  // namespace espalier
