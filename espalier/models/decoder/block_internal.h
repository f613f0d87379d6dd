// One decoder block: loading it and running it. Internal to models/decoder.
#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

/// Where a layer's new keys and values go; null pointers without a cache.
struct CacheSlot {
  at::Tensor* keys = nullptr;  // [batch, kv_heads, capacity, head_dim]
  at::Tensor* values = nullptr;
  std::int64_t start = 0;  // positions already filled
};

/// sqrt(hidden_size) as the compute dtype has it: gemma rounds before it multiplies.
double embedding_scale(const DecoderConfig& config, at::ScalarType type);

/// Queries or keys [..., heads, head_dim] turned by the tables of a layer; may overwrite x.
at::Tensor turn(const at::Tensor& x, const RopeTables& tables, bool local);

std::shared_ptr<DecoderBlock> load_block(const DecoderCheckpoint& checkpoint, std::int64_t layer,
                                         at::ScalarType type, at::Device device);

/// h [batch, tokens, d] -> [batch, tokens, d]; `h` is left alone.
at::Tensor run_block(const DecoderBlock& block, const DecoderConfig& config, const at::Tensor& h,
                     const AttentionContext& context, const CacheSlot& cache);

}  // namespace espalier
