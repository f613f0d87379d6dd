// Small random decoders on disk for unit tests: a Hugging Face folder or a GGUF file. For tests
// only; larger ones, with a tokenizer, come from the program tests/make_tiny_model.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/random.h"
#include "espalier/io/gguf.h"
#include "espalier/io/safetensors.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier::testing_support {

/// An empty folder that disappears with this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "espalier-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

struct TinyDecoder {
  std::int64_t layers = 4, hidden = 32, intermediate = 64, heads = 4, kv_heads = 2, vocab = 61;
  bool tied = false, qwen2 = false;
  std::uint64_t seed = 1;

  DecoderConfig config() const {
    DecoderConfig config;
    config.family = qwen2 ? DecoderFamily::kQwen2 : DecoderFamily::kLlama;
    config.hidden_size = hidden, config.intermediate_size = intermediate,
    config.num_layers = layers;
    config.num_heads = heads, config.num_kv_heads = kv_heads, config.head_dim = hidden / heads,
    config.vocab_size = vocab;
    config.tied_embeddings = tied, config.attention_bias = qwen2;
    return config;
  }

  /// Near-normal values of standard deviation 1/sqrt(columns); norms around 1. Depend on seed and
  /// name only.
  std::vector<float> values(const TensorSpec& spec) const {
    std::int64_t count = 1;
    for (const std::int64_t size : spec.shape) count *= size;
    RandomStream stream(seed, spec.name);
    const bool norm = spec.name.find("norm") != std::string::npos;
    const double scale = norm ? 0.1 : 1.0 / std::sqrt(static_cast<double>(spec.shape.back()));
    std::vector<float> out(static_cast<std::size_t>(count));
    for (float& value : out) {
      double sum = -6;
      for (int i = 0; i < 12; ++i) sum += stream.uniform();
      value = static_cast<float>(sum * scale + (norm ? 1 : 0));
    }
    return out;
  }

  Json config_json() const {
    return {{"architectures", {qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
            {"model_type", qwen2 ? "qwen2" : "llama"},
            {"hidden_size", hidden},
            {"intermediate_size", intermediate},
            {"num_hidden_layers", layers},
            {"num_attention_heads", heads},
            {"num_key_value_heads", kv_heads},
            {"vocab_size", vocab},
            {"max_position_embeddings", 64},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 10000.0},
            {"tie_word_embeddings", tied},
            {"hidden_act", "silu"},
            {"torch_dtype", "float32"},
            {"eos_token_id", 2}};
  }

  /// float32 folder; `shards` files.
  void write_folder(const std::filesystem::path& folder, std::size_t shards = 1) const {
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / "config.json", dump_json(config_json()));
    write_file_atomically(folder / "generation_config.json", "{\"eos_token_id\": 2}\n");
    const auto specs = decoder_tensor_specs(config());
    Json map = Json::object();
    for (std::size_t shard = 0; shard < shards; ++shard) {
      const std::string name = shards == 1
                                   ? "model.safetensors"
                                   : format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
      std::vector<TensorPlan> plan;
      for (std::size_t i = specs.size() * shard / shards; i < specs.size() * (shard + 1) / shards;
           ++i) {
        plan.push_back({specs[i].name, Dtype::kF32, specs[i].shape});
        map[specs[i].name] = name;
      }
      SafetensorsWriter writer(folder / name, plan);
      for (const TensorPlan& tensor : plan) {
        const auto data = values({tensor.name, tensor.shape});
        writer.append(std::as_bytes(std::span(data)));
      }
      writer.finish();
    }
    if (shards > 1) {
      write_file_atomically(folder / "model.safetensors.index.json",
                            dump_json({{"metadata", {{"total_size", 0}}}, {"weight_map", map}}));
    }
  }

  std::vector<std::pair<std::string, GgufValue>> gguf_metadata() const {
    const std::string arch = qwen2 ? "qwen2" : "llama";
    std::vector<std::pair<std::string, GgufValue>> list{
        {"general.architecture", GgufValue::string(arch)}};
    const auto u32 = [&](const char* key, std::int64_t value) {
      list.emplace_back(arch + "." + key, GgufValue::u32(static_cast<std::uint32_t>(value)));
    };
    u32("block_count", layers);
    u32("context_length", 64);
    u32("embedding_length", hidden);
    u32("feed_forward_length", intermediate);
    u32("attention.head_count", heads);
    u32("attention.head_count_kv", kv_heads);
    list.emplace_back(arch + ".attention.layer_norm_rms_epsilon", GgufValue::f32(1e-5f));
    list.emplace_back(arch + ".rope.freq_base", GgufValue::f32(10000));
    return list;
  }

  /// Matrices in `type`, vectors in F32, llama's q and k rows as they are (the permutation means
  /// nothing to random weights). `more` is appended to the metadata.
  void write_gguf(const std::filesystem::path& path, GgufType type,
                  const std::vector<std::pair<std::string, GgufValue>>& more = {}) const {
    auto metadata = gguf_metadata();
    metadata.insert(metadata.end(), more.begin(), more.end());
    std::vector<GgufTensorPlan> plan;
    const auto specs = decoder_tensor_specs(config());
    for (const TensorSpec& spec : specs) {
      plan.push_back(
          {gguf_name_of(spec.name), spec.shape.size() > 1 ? type : GgufType::kF32, spec.shape});
    }
    GgufWriter writer(path, metadata, plan);
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const auto data = values(specs[i]);
      std::vector<std::byte> bytes(static_cast<std::size_t>(
          gguf_bytes(plan[i].type, static_cast<std::int64_t>(data.size()))));
      quantize(plan[i].type, data, bytes);
      writer.append(bytes);
    }
    writer.finish();
  }
};

}  // namespace espalier::testing_support
