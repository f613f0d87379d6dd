// Decoder language models: plain structs of tensors, run whole or by ranges of layers, over batches
// of equal length or packed rows, with or without a key/value cache. Tensor names follow the
// Hugging Face checkpoints.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/config.h"
#include "espalier/models/decoder/rope_tables.h"
#include "espalier/nn/gated_mlp.h"
#include "espalier/nn/linear.h"
#include "espalier/nn/rms_norm.h"
#include "espalier/nn/visit.h"

namespace espalier {

/// Either q_proj, k_proj and v_proj are defined, or qkv_proj, their rows one after the other
/// (phi3).
struct Attention {
  Linear q_proj, k_proj, v_proj, qkv_proj, o_proj;
  RmsNorm q_norm, k_norm;  // undefined without DecoderConfig::qk_norm

  template <class V>
  void visit(V&& slot) {
    slot("q_proj", q_proj);
    slot("k_proj", k_proj);
    slot("v_proj", v_proj);
    slot("qkv_proj", qkv_proj);
    slot("o_proj", o_proj);
    slot("q_norm", q_norm);
    slot("k_norm", k_norm);
  }
};

/// Norms by DecoderConfig::norms: kBefore has input_layernorm before attention and
/// post_attention_layernorm before the MLP; kAfter has post_attention_layernorm after attention and
/// post_feedforward_layernorm after the MLP; kSandwich has all four, pre_feedforward_layernorm
/// before the MLP.
struct DecoderBlock {
  RmsNorm input_layernorm;
  Attention self_attn;
  RmsNorm post_attention_layernorm, pre_feedforward_layernorm, post_feedforward_layernorm;
  GatedMlp mlp;
  std::int64_t window = 0;  // sliding window of this layer, 0 = full
  bool use_rope = true;

  template <class V>
  void visit(V&& slot) {
    slot("input_layernorm", input_layernorm);
    slot("self_attn", self_attn);
    slot("post_attention_layernorm", post_attention_layernorm);
    slot("pre_feedforward_layernorm", pre_feedforward_layernorm);
    slot("post_feedforward_layernorm", post_feedforward_layernorm);
    slot("mlp", mlp);
  }
};

/// Rotary tables and, for packed rows, sequence boundaries; made once per batch, shared by all
/// layers.
struct AttentionContext {
  RopeTables rope;  // [tokens, rotary_size] in the compute dtype
  std::vector<std::int64_t>
      row_starts;  // packed rows only: 0, len0, len0+len1, ... total (size rows + 1)
  std::vector<std::int64_t> row_prefixes;  // see PackedRow::prefix; empty: no row has one
  bool beyond = false;  // longrope: turned as in sequences past the original context
};

/// A row of a packed batch. `prefix`: an earlier row without prefix of its own, whose tokens stand
/// in front of this row's: they are seen, positions go on after them, and they run only once for
/// all the rows that share them. -1: none.
struct PackedRow {
  std::int64_t length = 0;
  std::int64_t prefix = -1;
};

/// Keys and values of each layer for incremental decoding. Layers are numbered as in the model it
/// was made for.
class KvCache {
 public:
  KvCache(const DecoderConfig& config, std::int64_t batch, std::int64_t capacity,
          at::ScalarType type, at::Device device);
  std::int64_t length() const { return length_; }
  std::int64_t capacity() const { return capacity_; }
  void truncate(std::int64_t length) { length_ = length; }

 private:
  friend class Decoder;
  std::int64_t length_ = 0, capacity_ = 0;
  bool beyond_ = false;                    // how the keys were turned, see AttentionContext
  std::vector<at::Tensor> keys_, values_;  // [batch, kv_heads, capacity, head_dim]
};

enum class Residency : std::uint8_t {
  kResident,  // all blocks are loaded once and kept
  kStreamed,  // each block is loaded from the mapped file when it runs and released after: O(one
              // block) memory
};

class Decoder {
 public:
  /// `type`: compute dtype (float32 or bfloat16). `on_block`: called with each resident block as
  /// it arrives, before the next one is loaded (to quantise it, say).
  static Decoder load(std::shared_ptr<const DecoderCheckpoint> checkpoint, at::ScalarType type,
                      at::Device device, Residency residency = Residency::kResident,
                      const std::function<void(DecoderBlock&, std::int64_t)>& on_block = {});
  static Decoder load(const std::filesystem::path& folder_or_gguf, at::ScalarType type,
                      at::Device device, Residency residency = Residency::kResident);

  const DecoderConfig& config() const { return config_; }
  at::ScalarType type() const { return type_; }
  at::Device device() const { return device_; }
  std::int64_t num_layers() const { return static_cast<std::int64_t>(layer_ids_.size()); }

  /// The model without some layers, sharing weights; layers keep their own window and rope
  /// switches.
  Decoder with_layers(const std::vector<std::int64_t>& kept) const;
  /// Layer `layer` alone as a resident model: a streamed block is read once, however often it then
  /// runs, and its pages are released when the result goes.
  Decoder hold_layer(std::int64_t layer) const;

  /// ids [batch, tokens] int64 -> [batch, tokens, d], scaled where the model scales them (gemma).
  at::Tensor embed(const at::Tensor& ids) const;
  /// Context for `tokens` positions starting at `start` (cache length), batches of equal length.
  /// longrope (phi3) chooses its factors by the sequence's length so far, `longest`: start + tokens
  /// unless more of it is known to follow.
  AttentionContext context(std::int64_t tokens, std::int64_t start = 0,
                           std::int64_t longest = 0) const;
  /// Whether the cached keys serve a sequence of `longest` tokens. They do not where longrope
  /// changes its factors between their length and that one: then the cache is to be filled anew.
  bool serves(const KvCache& cache, std::int64_t longest) const;
  /// Context for packed rows: hidden is [1, total, d], row i takes lengths[i] tokens, positions
  /// restart at 0, no row sees another. longrope chooses by each row's own length.
  AttentionContext packed_context(const std::vector<std::int64_t>& lengths) const;
  /// The same for rows that share prefixes.
  AttentionContext packed_context(const std::vector<PackedRow>& rows) const;
  /// Whether sequences of `longest` tokens turn their first `shortest` tokens as shorter sequences
  /// do, so that these may run once for several; not with longrope (phi3) past its first context.
  bool shares_prefixes(std::int64_t shortest, std::int64_t longest) const;

  /// Runs layers [first, last) over h [batch, tokens, d] and returns the raw residual stream
  /// (before the final norm). With a cache: keys and values are appended at cache.length(); the
  /// caller advances it once per step (`advance`).
  at::Tensor run_layers(at::Tensor h, std::int64_t first, std::int64_t last,
                        const AttentionContext& context, KvCache* cache = nullptr) const;
  at::Tensor run_layer(const at::Tensor& h, std::int64_t layer, const AttentionContext& context,
                       KvCache* cache = nullptr) const;
  static void advance(KvCache& cache, std::int64_t tokens) { cache.length_ += tokens; }

  at::Tensor final_norm(const at::Tensor& h) const;
  /// h after the final norm [..., d] -> logits [..., vocab], float32, capped where the model caps
  /// them (config().final_softcap, which linear_nll and linear_cross_entropy take as an argument).
  at::Tensor logits(const at::Tensor& normed) const;
  /// The output matrix [vocab, d] (the embedding when tied).
  const at::Tensor& head_weight() const;
  /// Whole forward without cache: ids [batch, tokens] -> logits [batch, tokens, vocab] float32.
  at::Tensor forward(const at::Tensor& ids) const;

  /// Lets products of a few rows (decoding) read the weights as the GGUF file holds them: the same
  /// bits, several times fewer bytes. For models that only run; nothing happens unless the model is
  /// resident, float32, on the CPU, whole and from a GGUF. The file's pages become resident.
  void decode_from_file();

  // For training and surgery: direct access (resident models only; Error(kInternal) when streamed).
  DecoderBlock& block(std::int64_t layer);
  const DecoderBlock& block(std::int64_t layer) const;
  RmsNorm& norm() { return *norm_; }
  at::Tensor& embedding() { return *embedding_; }
  /// Makes the head a tensor of its own (a copy of the embedding); no-op when untied already.
  void untie_head();
  void set_head(at::Tensor weight);
  /// Every tensor with its Hugging Face name in canonical order; head only when untied.
  void for_each_parameter(const std::function<void(const std::string&, at::Tensor&)>& fn);

 private:
  Decoder() = default;
  DecoderConfig config_;
  at::ScalarType type_ = at::kFloat;
  at::Device device_ = at::kCPU;
  Residency residency_ = Residency::kResident;
  std::shared_ptr<const DecoderCheckpoint> checkpoint_;
  std::vector<std::int64_t> layer_ids_;                // position -> layer of the checkpoint
  std::vector<std::shared_ptr<DecoderBlock>> blocks_;  // by position; empty entries when streamed
  std::shared_ptr<at::Tensor> embedding_, head_;
  std::shared_ptr<const GgufMatrix> stored_head_;  // see decode_from_file
  std::shared_ptr<RmsNorm> norm_;
  RopeFrequencies rope_;
};

}  // namespace espalier
