// See model_facts.h.
#include "apps/cli/model_facts.h"

#include <algorithm>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/text/tokenizer.h"

namespace espalier::cli {
namespace {

constexpr std::int64_t kPartialLast = 3;  // finetune's default

/// The first of these keys that holds an integer, at the top of the config or in its text_config.
std::int64_t config_int(const Json& config, std::initializer_list<const char*> keys) {
  for (const Json* object :
       {&config, config.contains("text_config") ? &config["text_config"] : nullptr}) {
    if (object == nullptr || !object->is_object()) continue;
    for (const char* key : keys) {
      const auto found = object->find(key);
      if (found != object->end() && found->is_number_integer()) return found->get<std::int64_t>();
    }
  }
  return 0;
}

std::string config_text(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool is_head(std::string_view name) { return name == "lm_head.weight" || name == "output.weight"; }

/// Buffers, not parameters.
bool is_buffer(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight";
}

void add_tensor(ModelFacts& facts, std::string_view name, std::string_view dtype,
                std::int64_t elements, std::uint64_t bytes) {
  DtypeShare& share = facts.dtypes[std::string(dtype)];
  ++share.tensors;
  share.elements += elements;
  share.bytes += static_cast<std::int64_t>(bytes);
  ++facts.tensors;
  facts.weight_bytes += static_cast<std::int64_t>(bytes);
  if (is_buffer(name) || (facts.tied_embeddings && is_head(name))) return;
  facts.parameters += elements;
  if (layer_of_tensor(name) == 0) facts.layer_parameters += elements;
}

void take_decoder_sizes(ModelFacts& facts) {
  if (!facts.decoder) return;
  const DecoderConfig& config = *facts.decoder;
  facts.layers = config.num_layers;
  facts.hidden_size = config.hidden_size;
  facts.intermediate_size = config.intermediate_size;
  facts.num_heads = config.num_heads;
  facts.num_kv_heads = config.num_kv_heads;
  facts.head_dim = config.head_dim;
  facts.vocab_size = config.vocab_size;
  facts.context_length = config.context_length;
  facts.tied_embeddings = config.tied_embeddings;
}

/// Sizes of an architecture that espalier does not run, as far as the usual keys say them.
void take_config_sizes(ModelFacts& facts, const Json& config) {
  facts.layers = config_int(config, {"num_hidden_layers", "n_layer", "num_layers", "n_layers"});
  facts.hidden_size = config_int(config, {"hidden_size", "n_embd", "d_model"});
  facts.intermediate_size = config_int(config, {"intermediate_size", "n_inner", "ffn_hidden_size"});
  facts.num_heads = config_int(config, {"num_attention_heads", "n_head"});
  facts.num_kv_heads = config_int(config, {"num_key_value_heads", "num_kv_heads"});
  if (facts.num_kv_heads == 0) facts.num_kv_heads = facts.num_heads;
  facts.head_dim = config_int(config, {"head_dim"});
  if (facts.head_dim == 0 && facts.num_heads > 0)
    facts.head_dim = facts.hidden_size / facts.num_heads;
  facts.vocab_size = config_int(config, {"vocab_size"});
  facts.context_length = config_int(config, {"max_position_embeddings", "n_positions", "n_ctx"});
  const auto tied = config.find("tie_word_embeddings");
  facts.tied_embeddings = tied != config.end() && tied->is_boolean() && tied->get<bool>();
}

template <class Parse>
void try_decoder(ModelFacts& facts, Parse parse) {
  try {
    facts.decoder = parse();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported && error.kind() != ErrorKind::kInput) throw;
    facts.decoder_problem = error.message();
  }
}

template <class Load>
void read_tokenizer(TokenizerFacts& facts, Load load) {
  try {
    const Tokenizer tokenizer = load();
    facts.vocab_size = tokenizer.vocab_size();
    facts.bos = tokenizer.bos();
    facts.eos = tokenizer.eos();
    facts.pad = tokenizer.pad();
    facts.adds_bos = tokenizer.adds_bos();
    facts.has_chat_template = tokenizer.chat_template().has_value();
  } catch (const Error& error) {
    facts.problem = error.what();
  }
}

ModelFacts read_hf(const std::filesystem::path& path) {
  const HfFolder folder = HfFolder::open(path);
  const std::string source = (path / "config.json").string();
  const Json config = parse_json(folder.config_text(), source);
  if (!config.is_object()) throw Error(ErrorKind::kInput, source, "is not a JSON object");
  ModelFacts facts;
  facts.format = "hf";
  facts.path = path.string();
  facts.name = config_text(config, "_name_or_path");
  if (const auto list = config.find("architectures");
      list != config.end() && list->is_array() && !list->empty() && list->front().is_string()) {
    facts.architecture = list->front().get<std::string>();
  } else {
    facts.architecture = config_text(config, "model_type");
  }
  take_config_sizes(facts, config);
  try_decoder(facts, [&] { return parse_hf_decoder_config(folder.config_text(), source); });
  take_decoder_sizes(facts);
  std::set<const MappedFile*> files;
  for (const StoredTensor& tensor : folder.tensors()) {
    files.insert(tensor.file.get());
    add_tensor(facts, tensor.name, safetensors_name(tensor.dtype), tensor.numel(),
               tensor.data.size());
  }
  facts.files = static_cast<std::int64_t>(files.size());
  facts.tokenizer.found = std::filesystem::exists(path / "tokenizer.json") ||
                          std::filesystem::exists(path / "tokenizer.model");
  if (facts.tokenizer.found)
    read_tokenizer(facts.tokenizer, [&] { return Tokenizer::from_folder(path); });
  return facts;
}

std::int64_t gguf_int(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr || std::holds_alternative<GgufArray>(value->value))
    return 0;  // per-layer lists have no one size
  return static_cast<std::int64_t>(file.get_uint(key).value_or(0));
}

ModelFacts read_gguf(const std::filesystem::path& path) {
  const GgufFile file = GgufFile::open(path);
  ModelFacts facts;
  facts.format = "gguf";
  facts.path = file.path().string();
  facts.architecture = file.architecture();
  facts.name = file.get_string("general.name").value_or("");
  const std::string arch = facts.architecture + ".";
  facts.layers = gguf_int(file, arch + "block_count");
  facts.hidden_size = gguf_int(file, arch + "embedding_length");
  facts.intermediate_size = gguf_int(file, arch + "feed_forward_length");
  facts.num_heads = gguf_int(file, arch + "attention.head_count");
  facts.num_kv_heads = gguf_int(file, arch + "attention.head_count_kv");
  if (facts.num_kv_heads == 0) facts.num_kv_heads = facts.num_heads;
  facts.head_dim = gguf_int(file, arch + "attention.key_length");
  if (facts.head_dim == 0 && facts.num_heads > 0)
    facts.head_dim = facts.hidden_size / facts.num_heads;
  facts.context_length = gguf_int(file, arch + "context_length");
  facts.tied_embeddings = file.find_tensor("output.weight") == nullptr;
  if (const GgufTensor* embedding = file.find_tensor("token_embd.weight");
      embedding != nullptr && !embedding->shape.empty()) {
    facts.vocab_size = embedding->shape.front();
  }
  try_decoder(facts, [&] { return parse_gguf_decoder_config(file); });
  take_decoder_sizes(facts);
  std::set<const MappedFile*> files;
  for (const GgufTensor& tensor : file.tensors()) {
    files.insert(tensor.file.get());
    add_tensor(facts, tensor.name, gguf_type_info(tensor.type).name, tensor.numel(),
               tensor.data.size());
  }
  facts.files = std::max<std::int64_t>(1, static_cast<std::int64_t>(files.size()));
  facts.tokenizer.found = file.find("tokenizer.ggml.tokens") != nullptr;
  if (facts.tokenizer.found)
    read_tokenizer(facts.tokenizer, [&] { return Tokenizer::from_gguf(file); });
  return facts;
}

/// Keys and values of `tokens` tokens in one sequence, in elements.
std::int64_t kv_elements(const ModelFacts& facts, std::int64_t tokens) {
  const std::int64_t per_token = 2 * facts.num_kv_heads * facts.head_dim;
  if (!facts.decoder) return per_token * facts.layers * tokens;
  std::int64_t elements = 0;
  for (std::int64_t layer = 0; layer < facts.layers; ++layer) {
    const auto index = static_cast<std::size_t>(layer);
    const std::int64_t window =
        index < facts.decoder->window.size() ? facts.decoder->window[index] : 0;
    elements += per_token * (window > 0 ? std::min(window, tokens) : tokens);
  }
  return elements;
}

}  // namespace

ModelFacts read_model_facts(const ModelLocation& location) {
  return location.kind == ModelLocation::Kind::kGguf ? read_gguf(location.path)
                                                     : read_hf(location.path);
}

MemoryEstimate estimate_memory(const ModelFacts& facts) {
  MemoryEstimate memory;
  memory.weights_as_stored = facts.weight_bytes;
  memory.weights_float32 = 4 * facts.parameters;
  memory.weights_bfloat16 = 2 * facts.parameters;
  constexpr std::int64_t kTokens = 1024;
  memory.kv_per_1k_float32 = 4 * kv_elements(facts, kTokens);
  memory.kv_per_1k_bfloat16 = 2 * kv_elements(facts, kTokens);
  memory.kv_at_context_float32 = 4 * kv_elements(facts, facts.context_length);
  memory.kv_at_context_bfloat16 = 2 * kv_elements(facts, facts.context_length);
  constexpr std::int64_t kWeight = 4, kTrained = 4 + 8;  // float32; gradient and two moments
  memory.finetune_full = facts.parameters * (kWeight + kTrained);
  memory.partial_last = std::min(kPartialLast, facts.layers);
  const std::int64_t head = facts.vocab_size * facts.hidden_size;
  memory.partial_trainable =
      memory.partial_last * facts.layer_parameters + facts.hidden_size + head;
  memory.finetune_partial = (facts.parameters + (facts.tied_embeddings ? head : 0)) * kWeight +
                            memory.partial_trainable * kTrained;
  return memory;
}

}  // namespace espalier::cli
