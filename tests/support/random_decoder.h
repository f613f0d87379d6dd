// A tiny decoder with random weights in memory, for unit tests that need a model but no file and no
// meaning.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::testing_support {

inline DecoderConfig tiny_config(std::int64_t layers = 4, bool tied = true) {
  DecoderConfig config;
  config.family = DecoderFamily::kLlama;
  config.architecture = "LlamaForCausalLM";
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = layers;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 300;
  config.context_length = 512;
  config.tied_embeddings = tied;
  config.window.assign(static_cast<std::size_t>(layers), 0);
  config.use_rope.assign(static_cast<std::size_t>(layers), 1);
  return config;
}

/// Weights depend on the seed and the tensor's name only.
class RandomCheckpoint final : public DecoderCheckpoint {
 public:
  explicit RandomCheckpoint(const DecoderConfig& config, std::uint64_t seed = 0) {
    config_ = config;
    for (const TensorSpec& spec : decoder_tensor_specs(config)) {
      at::Generator generator = make_generator(seed, spec.name, 0, 0, at::kCPU);
      const at::Tensor noise = at::randn(spec.shape, generator, at::kFloat);
      tensors_[spec.name] = spec.shape.size() == 1 ? 1 + 0.1 * noise : 0.08 * noise;
    }
  }
  bool has(std::string_view name) const override { return tensors_.contains(std::string(name)); }
  at::Tensor load(std::string_view name, at::ScalarType type, at::Device device) const override {
    const auto found = tensors_.find(std::string(name));
    ESPALIER_ASSERT(found != tensors_.end());
    return found->second.to(device, type);
  }
  StoredWeight stored(std::string_view) const override {
    throw Error(ErrorKind::kUnsupported, "random checkpoint", "has no file");
  }
  void release_layer(std::int64_t) const override {}
  const std::filesystem::path& path() const override { return path_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
  std::filesystem::path path_ = "random";
};

inline Decoder random_decoder(const DecoderConfig& config, at::ScalarType type = at::kFloat,
                              std::uint64_t seed = 0) {
  return Decoder::load(std::make_shared<RandomCheckpoint>(config, seed), type, at::kCPU);
}

}  // namespace espalier::testing_support
