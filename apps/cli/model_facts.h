// What lies in a model folder or GGUF file, read from headers only, for any architecture; and the
// memory it will take.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/models/decoder/config.h"

namespace espalier::cli {

struct DtypeShare {
  std::int64_t tensors = 0, elements = 0, bytes = 0;
};

struct TokenizerFacts {
  bool found = false;
  std::int64_t vocab_size = 0;
  std::optional<std::int64_t> bos, eos, pad;
  bool adds_bos = false, has_chat_template = false;
  std::string problem;  // why it cannot be loaded; empty when it can
};

struct ModelFacts {
  std::string format;  // "hf" or "gguf"
  std::string path;
  std::string architecture;  // "LlamaForCausalLM", or the GGUF's "llama"
  std::string name;          // general.name of a GGUF, _name_or_path of a config; may be empty
  std::int64_t layers = 0, parameters = 0, layer_parameters = 0;  // tied matrices counted once
  std::int64_t hidden_size = 0, intermediate_size = 0, num_heads = 0, num_kv_heads = 0,
               head_dim = 0;
  std::int64_t vocab_size = 0, context_length = 0;
  bool tied_embeddings = false;
  std::map<std::string, DtypeShare> dtypes;
  std::int64_t weight_bytes = 0, files = 0, tensors = 0;
  TokenizerFacts tokenizer;
  /// The sizes espalier runs with; empty with `decoder_problem` set when it has not got this
  /// architecture.
  std::optional<DecoderConfig> decoder;
  std::string decoder_problem;
};

/// Opens the files and reads headers, config and tokenizer. Throws what opening throws; an
/// architecture that espalier cannot run is not an error.
ModelFacts read_model_facts(const ModelLocation& location);

/// Bytes. Sizes that are unknown for this architecture are 0.
struct MemoryEstimate {
  std::int64_t weights_as_stored = 0, weights_float32 = 0, weights_bfloat16 = 0;
  // Keys and values of one sequence: sliding windows keep no more than their width.
  std::int64_t kv_per_1k_float32 = 0, kv_per_1k_bfloat16 = 0;
  std::int64_t kv_at_context_float32 = 0, kv_at_context_bfloat16 = 0;
  // Weights in float32 plus, per trained parameter, a gradient and two moments (AdamW); a tied head
  // is untied by partial tuning. Activations come on top; `espalier finetune --dry-run` predicts
  // those too.
  std::int64_t finetune_full = 0, finetune_partial = 0;
  std::int64_t partial_last = 0, partial_trainable = 0;
};
MemoryEstimate estimate_memory(const ModelFacts& facts);

}  // namespace espalier::cli
