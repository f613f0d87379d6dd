// Synthetic decoders of any size for the benches of file operations: llama shape, random but
// harmless weights, O(1) memory.
//   make_large_model hf OUT_FOLDER GIB       bf16 Hugging Face folder
//   make_large_model gguf OUT_FILE GIB       Q8_0 GGUF
// Both have hidden 2048, 32 heads (4 for keys and values), feed-forward 5632, vocabulary 32000 and
// as many layers as fit.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/random.h"
#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/tensor_names.h"

namespace {

using namespace espalier;  // NOLINT: a program of one page

DecoderConfig shape_of(double bytes, double bytes_per_weight) {
  DecoderConfig config;
  config.hidden_size = 2048;
  config.intermediate_size = 5632;
  config.num_heads = 32;
  config.num_kv_heads = 4;
  config.head_dim = 64;
  config.vocab_size = 32000;
  const double outside = 2.0 * static_cast<double>(config.vocab_size * config.hidden_size);
  const double layers =
      (bytes / bytes_per_weight - outside) / static_cast<double>(config.parameters_per_layer());
  config.num_layers = std::max<std::int64_t>(4, static_cast<std::int64_t>(layers + 0.5));
  return config;
}

/// 1 MiB of weights at a time: bf16 of size 1/128 to 1/64 and random sign, or Q8_0 blocks with a
/// scale of 1/1024.
std::vector<std::byte> random_piece(RandomStream& stream, bool quantised) {
  std::vector<std::byte> piece(std::size_t{34} << 15);  // a multiple of 34, 8 and 2
  for (std::size_t at = 0; at < piece.size(); at += 8) {
    std::uint64_t bits = stream.next();
    if (!quantised) bits = (bits & 0x807F807F807F807Full) | 0x3C003C003C003C00ull;
    std::memcpy(piece.data() + at, &bits, 8);
  }
  if (quantised) {
    const std::uint16_t scale = 0x1400;
    for (std::size_t at = 0; at < piece.size(); at += 34) std::memcpy(piece.data() + at, &scale, 2);
  }
  return piece;
}

ByteProducer random_weights(const std::string& name, std::uint64_t bytes, bool quantised) {
  return [=](const ByteSink& sink) {
    RandomStream stream(1, name);
    for (std::uint64_t done = 0; done < bytes;) {
      const auto piece = random_piece(stream, quantised);
      const std::uint64_t part = std::min<std::uint64_t>(piece.size(), bytes - done);
      sink(std::span(piece).first(part));
      done += part;
    }
  };
}

std::uint64_t count(const std::vector<std::int64_t>& shape) {
  std::uint64_t numel = 1;
  for (const std::int64_t size : shape) numel *= static_cast<std::uint64_t>(size);
  return numel;
}

void write_folder(const std::filesystem::path& out, double bytes) {
  const DecoderConfig config = shape_of(bytes, 2);
  std::filesystem::create_directories(out);
  const Json json = {{"architectures", {"LlamaForCausalLM"}},
                     {"model_type", "llama"},
                     {"hidden_size", config.hidden_size},
                     {"intermediate_size", config.intermediate_size},
                     {"num_hidden_layers", config.num_layers},
                     {"num_attention_heads", config.num_heads},
                     {"num_key_value_heads", config.num_kv_heads},
                     {"vocab_size", config.vocab_size},
                     {"max_position_embeddings", 2048},
                     {"rms_norm_eps", 1e-5},
                     {"rope_theta", 10000.0},
                     {"tie_word_embeddings", false},
                     {"torch_dtype", "bfloat16"}};
  write_file_atomically(out / "config.json", dump_json(json));
  std::vector<TensorSource> tensors;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    tensors.push_back({{spec.name, Dtype::kBF16, spec.shape},
                       {},
                       random_weights(spec.name, 2 * count(spec.shape), false),
                       {}});
  }
  write_hf_weights(out, tensors);
}

void write_gguf(const std::filesystem::path& out, double bytes) {
  const DecoderConfig config = shape_of(bytes, 34.0 / 32);
  std::vector<std::pair<std::string, GgufValue>> metadata{
      {"general.architecture", GgufValue::string("llama")}};
  const auto u32 = [&](const char* key, std::int64_t value) {
    metadata.emplace_back(std::string("llama.") + key,
                          GgufValue::u32(static_cast<std::uint32_t>(value)));
  };
  u32("block_count", config.num_layers);
  u32("context_length", 2048);
  u32("embedding_length", config.hidden_size);
  u32("feed_forward_length", config.intermediate_size);
  u32("attention.head_count", config.num_heads);
  u32("attention.head_count_kv", config.num_kv_heads);
  metadata.emplace_back("llama.attention.layer_norm_rms_epsilon", GgufValue::f32(1e-5f));
  std::vector<GgufTensorPlan> plan;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    plan.push_back({gguf_name_of(spec.name),
                    spec.shape.size() > 1 ? GgufType::kQ8_0 : GgufType::kF32, spec.shape});
  }
  GgufWriter writer(out, metadata, plan);
  for (const GgufTensorPlan& tensor : plan) {
    if (tensor.type == GgufType::kF32) {
      const std::vector<float> ones(count(tensor.shape), 1.0F);
      writer.append(std::as_bytes(std::span(ones)));
    } else {
      writer.append(
          random_weights(tensor.name,
                         static_cast<std::uint64_t>(gguf_bytes(
                             tensor.type, static_cast<std::int64_t>(count(tensor.shape)))),
                         true));
    }
  }
  writer.finish();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string format = argc == 4 ? argv[1] : "";
  const double bytes = argc == 4 ? std::atof(argv[3]) * 1024 * 1024 * 1024 : 0;
  if ((format != "hf" && format != "gguf") || bytes <= 0) {
    std::fprintf(stderr, "make_large_model hf|gguf OUT GIB\n");
    return 2;
  }
  try {
    if (format == "hf") {
      write_folder(argv[2], bytes);
    } else {
      write_gguf(argv[2], bytes);
    }
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
