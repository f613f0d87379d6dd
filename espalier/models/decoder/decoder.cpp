// The decoder: loading, embedding, blocks in order, head. The arithmetic of a block is in
// block.cpp.
#include "espalier/models/decoder/decoder.h"

#include <algorithm>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/matmul/matmul.h"
#include "espalier/models/decoder/block_internal.h"
#include "espalier/models/decoder/rope_tables.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier {
namespace {

/// Tables of rows one after another; with longrope each row turns by its own length, as if it were
/// alone.
RopeTables packed_rope(const RopeFrequencies& frequencies, const std::vector<at::Tensor>& positions,
                       const std::vector<std::int64_t>& lengths, at::ScalarType type,
                       at::Device device) {
  if (!frequencies.beyond.defined())
    return rope_tables(frequencies, at::cat(positions), 0, type, device);
  std::vector<at::Tensor> cos, sin;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const RopeTables row = rope_tables(frequencies, positions[i], lengths[i], type, device);
    cos.push_back(row.cos);
    sin.push_back(row.sin);
  }
  RopeTables out;
  out.cos = at::cat(cos);
  out.sin = at::cat(sin);
  return out;
}

}  // namespace

KvCache::KvCache(const DecoderConfig& config, std::int64_t batch, std::int64_t capacity,
                 at::ScalarType type, at::Device device)
    : capacity_(capacity) {
  ESPALIER_ASSERT(batch > 0 && capacity > 0);
  const auto options = at::TensorOptions().dtype(type).device(device);
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    keys_.push_back(at::empty({batch, config.num_kv_heads, capacity, config.head_dim}, options));
    values_.push_back(at::empty({batch, config.num_kv_heads, capacity, config.head_dim}, options));
  }
}

Decoder Decoder::load(std::shared_ptr<const DecoderCheckpoint> checkpoint, at::ScalarType type,
                      at::Device device, Residency residency,
                      const std::function<void(DecoderBlock&, std::int64_t)>& on_block) {
  ESPALIER_ASSERT(checkpoint != nullptr);
  if (type != at::kFloat && type != at::kBFloat16) {
    throw Error(ErrorKind::kUnsupported, "dtype",
                format("{} is not a compute dtype of decoders, expected float32 or bfloat16",
                       c10::toString(type)));
  }
  c10::NoGradGuard no_grad;
  Decoder model;
  model.config_ = checkpoint->config();
  model.type_ = type;
  model.device_ = device;
  model.residency_ = residency;
  model.checkpoint_ = std::move(checkpoint);
  const DecoderCheckpoint& weights = *model.checkpoint_;
  model.embedding_ =
      std::make_shared<at::Tensor>(weights.load("model.embed_tokens.weight", type, device));
  if (!model.config_.tied_embeddings)
    model.head_ = std::make_shared<at::Tensor>(weights.load("lm_head.weight", type, device));
  model.norm_ =
      std::make_shared<RmsNorm>(RmsNorm{weights.load("model.norm.weight", type, device),
                                        model.config_.rms_norm_eps, model.config_.norm_plus_one});
  model.rope_ = rope_frequencies(model.config_);
  for (std::int64_t i = 0; i < model.config_.num_layers; ++i) {
    model.layer_ids_.push_back(i);
    model.blocks_.push_back(residency == Residency::kResident ? load_block(weights, i, type, device)
                                                              : nullptr);
    if (on_block && model.blocks_.back() != nullptr) on_block(*model.blocks_.back(), i);
  }
  return model;
}

Decoder Decoder::load(const std::filesystem::path& folder_or_gguf, at::ScalarType type,
                      at::Device device, Residency residency) {
  return load(std::shared_ptr<const DecoderCheckpoint>(DecoderCheckpoint::open(folder_or_gguf)),
              type, device, residency);
}

Decoder Decoder::with_layers(const std::vector<std::int64_t>& kept) const {
  Decoder out = *this;
  out.layer_ids_.clear();
  out.blocks_.clear();
  out.config_.window.clear();
  out.config_.use_rope.clear();
  for (const std::int64_t layer : kept) {
    if (layer < 0 || layer >= num_layers()) {
      throw Error(ErrorKind::kInput, "layers",
                  format("layer {} is outside 0-{}", layer, num_layers() - 1));
    }
    const auto at = static_cast<std::size_t>(layer);
    out.layer_ids_.push_back(layer_ids_[at]);
    out.blocks_.push_back(blocks_[at]);
    out.config_.window.push_back(config_.window[at]);
    out.config_.use_rope.push_back(config_.use_rope[at]);
  }
  out.config_.num_layers = static_cast<std::int64_t>(kept.size());
  return out;
}

Decoder Decoder::hold_layer(std::int64_t layer) const {
  Decoder out = with_layers({layer});
  out.residency_ = Residency::kResident;
  if (out.blocks_[0] != nullptr) return out;
  const std::int64_t id = out.layer_ids_[0];
  auto block = load_block(*checkpoint_, id, type_, device_);
  DecoderBlock* loaded = block.get();
  out.blocks_[0] = {
      loaded, [block = std::move(block), checkpoint = checkpoint_, id](DecoderBlock*) mutable {
        block.reset();
        checkpoint->release_layer(id);
      }};
  return out;
}

at::Tensor Decoder::embed(const at::Tensor& ids) const {
  ESPALIER_ASSERT(ids.dim() == 2 && ids.scalar_type() == at::kLong);
  if (ids.numel() > 0 && ids.device().is_cpu()) {
    const auto [low, high] = at::aminmax(ids);
    const std::int64_t bad =
        low.item<std::int64_t>() < 0 ? low.item<std::int64_t>() : high.item<std::int64_t>();
    if (bad < 0 || bad >= config_.vocab_size) {
      throw Error(ErrorKind::kInput, "token ids",
                  format("id {} is outside the vocabulary of {}", bad, config_.vocab_size))
          .hint("the tokenizer and the model do not belong together");
    }
  }
  const at::Tensor h = at::embedding(*embedding_, ids.to(device_));
  return config_.scaled_embedding ? h * embedding_scale(config_, type_) : h;
}

AttentionContext Decoder::context(std::int64_t tokens, std::int64_t start,
                                  std::int64_t longest) const {
  longest = std::max(longest, start + tokens);
  AttentionContext out;
  out.rope =
      rope_tables(rope_, at::arange(start, start + tokens, at::kLong), longest, type_, device_);
  out.beyond = rope_.is_beyond(longest);
  return out;
}

bool Decoder::serves(const KvCache& cache, std::int64_t longest) const {
  return cache.length() == 0 || cache.beyond_ == rope_.is_beyond(longest);
}

AttentionContext Decoder::packed_context(const std::vector<std::int64_t>& lengths) const {
  std::vector<PackedRow> rows;
  for (const std::int64_t length : lengths) rows.push_back({length});
  AttentionContext out = packed_context(rows);
  out.row_prefixes.clear();  // equal rows then run as one rectangle
  return out;
}

AttentionContext Decoder::packed_context(const std::vector<PackedRow>& rows) const {
  ESPALIER_ASSERT(!rows.empty());
  AttentionContext out;
  out.row_starts.push_back(0);
  std::vector<at::Tensor> positions;
  std::vector<std::int64_t> lengths;  // of the sequences, prefixes included
  for (const PackedRow& row : rows) {
    std::int64_t start = 0;
    if (row.prefix >= 0) {
      ESPALIER_ASSERT(row.prefix < static_cast<std::int64_t>(out.row_prefixes.size()));
      const PackedRow& prefix = rows[static_cast<std::size_t>(row.prefix)];
      ESPALIER_ASSERT(prefix.prefix < 0 &&
                      shares_prefixes(prefix.length, prefix.length + row.length));
      start = prefix.length;
    }
    ESPALIER_ASSERT(row.length > 0);
    positions.push_back(at::arange(start, start + row.length, at::kLong));
    lengths.push_back(start + row.length);
    out.row_starts.push_back(out.row_starts.back() + row.length);
    out.row_prefixes.push_back(row.prefix);
  }
  out.rope = packed_rope(rope_, positions, lengths, type_, device_);
  return out;
}

bool Decoder::shares_prefixes(std::int64_t shortest, std::int64_t longest) const {
  return rope_.is_beyond(shortest) == rope_.is_beyond(longest);
}

at::Tensor Decoder::run_layer(const at::Tensor& h, std::int64_t layer,
                              const AttentionContext& context, KvCache* cache) const {
  ESPALIER_ASSERT(layer >= 0 && layer < num_layers());
  const auto at = static_cast<std::size_t>(layer);
  CacheSlot slot;
  if (cache != nullptr) {
    ESPALIER_ASSERT(at < cache->keys_.size() && cache->length_ + h.size(1) <= cache->capacity_);
    ESPALIER_ASSERT(cache->length_ == 0 || cache->beyond_ == context.beyond);
    cache->beyond_ = context.beyond;
    slot = {&cache->keys_[at], &cache->values_[at], cache->length_};
  }
  if (blocks_[at] != nullptr) return run_block(*blocks_[at], config_, h, context, slot);
  const auto block = load_block(*checkpoint_, layer_ids_[at], type_, device_);
  const at::Tensor out = run_block(*block, config_, h, context, slot);
  checkpoint_->release_layer(layer_ids_[at]);
  return out;
}

at::Tensor Decoder::run_layers(at::Tensor h, std::int64_t first, std::int64_t last,
                               const AttentionContext& context, KvCache* cache) const {
  ESPALIER_ASSERT(first >= 0 && first <= last && last <= num_layers());
  for (std::int64_t layer = first; layer < last; ++layer) h = run_layer(h, layer, context, cache);
  return h;
}

at::Tensor Decoder::final_norm(const at::Tensor& h) const { return (*norm_)(h); }

at::Tensor Decoder::logits(const at::Tensor& normed) const {
  const bool few = stored_head_ != nullptr && normed.numel() < kGgufFewRows * config_.hidden_size;
  const at::Tensor raw =
      few ? gguf_matmul_nt(normed, *stored_head_) : matmul_nt(normed, head_weight());
  // Capped in the compute dtype, then widened, as the reference does.
  if (config_.final_softcap == 0) return raw.to(at::kFloat);
  return (at::tanh(raw / config_.final_softcap) * config_.final_softcap).to(at::kFloat);
}

const at::Tensor& Decoder::head_weight() const { return head_ != nullptr ? *head_ : *embedding_; }

at::Tensor Decoder::forward(const at::Tensor& ids) const {
  return logits(final_norm(run_layers(embed(ids), 0, num_layers(), context(ids.size(1)))));
}

DecoderBlock& Decoder::block(std::int64_t layer) {
  ESPALIER_ASSERT(residency_ == Residency::kResident && layer >= 0 && layer < num_layers());
  return *blocks_[static_cast<std::size_t>(layer)];
}

const DecoderBlock& Decoder::block(std::int64_t layer) const {
  ESPALIER_ASSERT(residency_ == Residency::kResident && layer >= 0 && layer < num_layers());
  return *blocks_[static_cast<std::size_t>(layer)];
}

void Decoder::untie_head() {
  if (head_ == nullptr) set_head(embedding_->detach().clone());
}

void Decoder::set_head(at::Tensor weight) {
  ESPALIER_ASSERT(weight.dim() == 2 && weight.size(0) == config_.vocab_size &&
                  weight.size(1) == config_.hidden_size);
  head_ = std::make_shared<at::Tensor>(std::move(weight));
  stored_head_ = nullptr;
  config_.tied_embeddings = false;
}

void Decoder::for_each_parameter(const std::function<void(const std::string&, at::Tensor&)>& fn) {
  fn("model.embed_tokens.weight", *embedding_);
  for (std::int64_t i = 0; i < num_layers(); ++i) {
    std::string prefix = layer_prefix(i);
    prefix.pop_back();  // for_each_tensor joins with a dot
    for_each_tensor(block(i), prefix, fn);
  }
  fn("model.norm.weight", norm_->weight);
  if (head_ != nullptr) fn("lm_head.weight", *head_);
}

}  // namespace espalier
