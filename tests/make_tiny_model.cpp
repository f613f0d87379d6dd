// make_tiny_model OUT: a small random decoder as a Hugging Face folder, for tests that need a model
// but no meaning. Weights depend on the seed and the tensor's name only. The tokenizer is
// byte-level BPE: 256 letters, a few merges and three special tokens. Memory O(one tensor), so
// folders of several GiB can be made for benches as well.
#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/random.h"
#include "espalier/io/safetensors.h"

namespace espalier {
namespace {

constexpr std::string_view kUsage =
    "make_tiny_model OUT [--family llama|mistral|qwen2] [--layers 4] [--hidden 64] [--intermediate "
    "2*HIDDEN]\n"
    "                [--heads HIDDEN/16] [--kv-heads HEADS/2] [--vocab 288] [--context 512] "
    "[--tied] [--seed 0]\n"
    "                [--dtype f32|bf16] [--window 0] [--llama3-rope] [--shards 1]\n";

struct TinyModel {
  std::string out, family = "llama", dtype = "f32";
  std::int64_t layers = 4, hidden = 64, intermediate = 0, heads = 0, kv_heads = 0, vocab = 288,
               context = 512;
  std::int64_t seed = 0, window = 0, shards = 1;
  bool tied = false, llama3_rope = false;
  std::int64_t head_dim() const { return hidden / heads; }
};

struct TinyTensor {
  TensorPlan plan;
  double mean = 0, deviation = 0;
};

// ---- tokenizer
// -----------------------------------------------------------------------------------------------------

std::string utf8(std::uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// The printable letter of each byte in byte-level BPE: printable Latin-1 bytes stand for
// themselves, the others take the code points from 256 on.
std::vector<std::string> byte_letters() {
  std::vector<std::string> letters(256);
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters[byte] = utf8(printable ? byte : next++);
  }
  return letters;
}

const std::vector<std::pair<std::string, std::string>>& merge_list() {
  static const std::vector<std::pair<std::string, std::string>> merges = {
      {"\u0120", "t"},  {"\u0120", "a"},   {"h", "e"},  {"i", "n"},      {"r", "e"},
      {"o", "n"},       {"\u0120t", "he"}, {"e", "r"},  {"\u0120", "s"}, {"a", "t"},
      {"\u0120", "w"},  {"\u0120", "o"},   {"e", "n"},  {"\u0120", "c"}, {"i", "t"},
      {"i", "s"},       {"a", "n"},        {"o", "r"},  {"e", "s"},      {"\u0120", "b"},
      {"e", "d"},       {"\u0120", "f"},   {"in", "g"}, {"\u0120", "p"}, {"o", "u"},
      {"\u0120a", "n"}, {"a", "l"},        {"a", "r"},  {"\u0120", "="}};
  return merges;
}

constexpr std::int64_t kSpecials = 3;

std::int64_t merge_count(const TinyModel& model) {
  return std::min<std::int64_t>(static_cast<std::int64_t>(merge_list().size()),
                                model.vocab - 256 - kSpecials);
}

std::int64_t first_special(const TinyModel& model) { return 256 + merge_count(model); }

Json tokenizer_json(const TinyModel& model) {
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  std::int64_t id = 0;
  for (const std::string& letter : byte_letters()) vocab[letter] = id++;
  for (std::int64_t i = 0; i < merge_count(model); ++i) {
    const auto& [left, right] = merge_list()[static_cast<std::size_t>(i)];
    vocab[left + right] = id++;
    merges.push_back(left + " " + right);
  }
  for (const char* special : {"<|bos|>", "<|eos|>", "<|pad|>"}) {
    vocab[special] = id;
    added.push_back({{"id", id++},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

Json tokenizer_config() {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"bos_token", "<|bos|>"},
          {"eos_token", "<|eos|>"},
          {"pad_token", "<|pad|>"},
          {"add_bos_token", false},
          {"clean_up_tokenization_spaces", false},
          {"model_max_length", 1000000},
          {"chat_template",
           "{% for m in messages %}<|bos|>{{ m['role'] }}\n{{ m['content'] }}<|eos|>\n{% endfor %}"
           "{% if add_generation_prompt %}<|bos|>assistant\n{% endif %}"}};
}

// ---- model
// ---------------------------------------------------------------------------------------------------------

Json config_json(const TinyModel& model) {
  const bool qwen = model.family == "qwen2";
  Json config = {{"architectures",
                  {qwen                        ? "Qwen2ForCausalLM"
                   : model.family == "mistral" ? "MistralForCausalLM"
                                               : "LlamaForCausalLM"}},
                 {"model_type", model.family},
                 {"hidden_size", model.hidden},
                 {"intermediate_size", model.intermediate},
                 {"num_hidden_layers", model.layers},
                 {"num_attention_heads", model.heads},
                 {"num_key_value_heads", model.kv_heads},
                 {"head_dim", model.head_dim()},
                 {"vocab_size", model.vocab},
                 {"max_position_embeddings", model.context},
                 {"hidden_act", "silu"},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"attention_dropout", 0.0},
                 {"initializer_range", 0.02},
                 {"tie_word_embeddings", model.tied},
                 {"bos_token_id", first_special(model)},
                 {"eos_token_id", first_special(model) + 1},
                 {"pad_token_id", first_special(model) + 2},
                 {"torch_dtype", model.dtype == "bf16" ? "bfloat16" : "float32"},
                 {"use_cache", true}};
  if (model.family == "llama") {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
    config["rope_scaling"] = nullptr;
    if (model.llama3_rope)
      config["rope_scaling"] = {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 1.0},
                                {"high_freq_factor", 4.0},
                                {"original_max_position_embeddings", 64}};
  } else if (model.family == "mistral") {
    config["sliding_window"] = model.window > 0 ? Json(model.window) : Json(nullptr);
  } else {
    config["use_sliding_window"] = model.window > 0;
    config["sliding_window"] = model.window > 0 ? Json(model.window) : Json(nullptr);
    config["max_window_layers"] = model.layers / 2;
  }
  return config;
}

std::vector<TinyTensor> tensor_list(const TinyModel& model) {
  std::vector<TinyTensor> tensors;
  const Dtype dtype = model.dtype == "bf16" ? Dtype::kBF16 : Dtype::kF32;
  const auto matrix = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    tensors.push_back({{name, dtype, {out, in}}, 0, 1 / std::sqrt(static_cast<double>(in))});
  };
  const auto vector = [&](const std::string& name, std::int64_t size, double mean) {
    tensors.push_back({{name, dtype, {size}}, mean, 0.1});
  };
  const std::int64_t d = model.hidden, q = model.heads * model.head_dim(),
                     kv = model.kv_heads * model.head_dim();
  matrix("model.embed_tokens.weight", model.vocab, d);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    const std::string layer = format("model.layers.{}.", i);
    vector(layer + "input_layernorm.weight", d, 1);
    matrix(layer + "self_attn.q_proj.weight", q, d);
    matrix(layer + "self_attn.k_proj.weight", kv, d);
    matrix(layer + "self_attn.v_proj.weight", kv, d);
    if (model.family == "qwen2") {
      vector(layer + "self_attn.q_proj.bias", q, 0);
      vector(layer + "self_attn.k_proj.bias", kv, 0);
      vector(layer + "self_attn.v_proj.bias", kv, 0);
    }
    matrix(layer + "self_attn.o_proj.weight", d, q);
    vector(layer + "post_attention_layernorm.weight", d, 1);
    matrix(layer + "mlp.gate_proj.weight", model.intermediate, d);
    matrix(layer + "mlp.up_proj.weight", model.intermediate, d);
    matrix(layer + "mlp.down_proj.weight", d, model.intermediate);
  }
  vector("model.norm.weight", d, 1);
  if (!model.tied) matrix("lm_head.weight", model.vocab, d);
  return tensors;
}

// Near-normal numbers, four 16-bit uniforms each (Irwin-Hall): cheap, and equal on every platform.
std::string tensor_data(const TinyTensor& tensor, std::int64_t seed) {
  std::int64_t count = 1;
  for (const std::int64_t size : tensor.plan.shape) count *= size;
  RandomStream stream(static_cast<std::uint64_t>(seed), tensor.plan.name);
  const double scale = tensor.deviation * std::sqrt(3.0) / 65536.0;
  const std::size_t width = static_cast<std::size_t>(dtype_size(tensor.plan.dtype));
  std::string bytes(static_cast<std::size_t>(count) * width, '\0');
  char* out = bytes.data();
  for (std::int64_t i = 0; i < count; ++i, out += width) {
    const std::uint64_t r = stream.next();
    const auto sum = static_cast<std::int64_t>((r & 0xFFFF) + ((r >> 16) & 0xFFFF) +
                                               ((r >> 32) & 0xFFFF) + (r >> 48));
    const float value = static_cast<float>(tensor.mean + scale * static_cast<double>(sum - 131070));
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (width == 4) {
      std::memcpy(out, &bits, 4);
    } else {
      const auto half = static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
      std::memcpy(out, &half, 2);
    }
  }
  return bytes;
}

void write_shard(const std::filesystem::path& path, const std::vector<TinyTensor>& tensors,
                 std::int64_t seed) {
  std::vector<TensorPlan> plan;
  for (const TinyTensor& tensor : tensors) plan.push_back(tensor.plan);
  SafetensorsWriter writer(path, plan);
  for (const TinyTensor& tensor : tensors) {
    const std::string bytes = tensor_data(tensor, seed);
    writer.append(std::as_bytes(std::span(bytes)));
  }
  writer.finish();
}

void write_weights(const TinyModel& model, const std::filesystem::path& folder) {
  const std::vector<TinyTensor> tensors = tensor_list(model);
  if (model.shards == 1) return write_shard(folder / "model.safetensors", tensors, model.seed);
  Json map = Json::object();
  std::int64_t total = 0;
  const auto count = static_cast<std::int64_t>(tensors.size());
  for (std::int64_t shard = 0; shard < model.shards; ++shard) {
    const std::string name = format("model-{:05}-of-{:05}.safetensors", shard + 1, model.shards);
    const std::vector<TinyTensor> part(tensors.begin() + count * shard / model.shards,
                                       tensors.begin() + count * (shard + 1) / model.shards);
    for (const TinyTensor& tensor : part) {
      map[tensor.plan.name] = name;
      std::int64_t bytes = dtype_size(tensor.plan.dtype);
      for (const std::int64_t size : tensor.plan.shape) bytes *= size;
      total += bytes;
    }
    write_shard(folder / name, part, model.seed);
  }
  write_file_atomically(folder / "model.safetensors.index.json",
                        dump_json({{"metadata", {{"total_size", total}}}, {"weight_map", map}}));
}

// ---- command line
// --------------------------------------------------------------------------------------------------

std::int64_t parse_number(std::string_view flag, std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    throw Error(ErrorKind::kUsage, flag, format("\"{}\" is not a number", text));
  return value;
}

TinyModel parse(const std::vector<std::string>& arguments) {
  TinyModel model;
  const std::vector<std::pair<std::string_view, std::int64_t*>> numbers = {
      {"--layers", &model.layers},
      {"--hidden", &model.hidden},
      {"--intermediate", &model.intermediate},
      {"--heads", &model.heads},
      {"--kv-heads", &model.kv_heads},
      {"--vocab", &model.vocab},
      {"--context", &model.context},
      {"--seed", &model.seed},
      {"--window", &model.window},
      {"--shards", &model.shards}};
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!argument.starts_with("--")) {
      model.out = argument;
      continue;
    }
    if (argument == "--tied") {
      model.tied = true;
      continue;
    }
    if (argument == "--llama3-rope") {
      model.llama3_rope = true;
      continue;
    }
    if (++i == arguments.size()) throw Error(ErrorKind::kUsage, argument, "needs a value");
    const auto number = std::find_if(numbers.begin(), numbers.end(),
                                     [&](const auto& n) { return n.first == argument; });
    if (number != numbers.end())
      *number->second = parse_number(argument, arguments[i]);
    else if (argument == "--family")
      model.family = arguments[i];
    else if (argument == "--dtype")
      model.dtype = arguments[i];
    else
      throw Error(ErrorKind::kUsage, argument, "unknown flag").hint(kUsage);
  }
  if (model.heads == 0) model.heads = std::max<std::int64_t>(1, model.hidden / 16);
  if (model.kv_heads == 0) model.kv_heads = std::max<std::int64_t>(1, model.heads / 2);
  if (model.intermediate == 0) model.intermediate = model.hidden * 2;
  return model;
}

void check(const TinyModel& model) {
  ProblemList problems(ErrorKind::kUsage, "make_tiny_model");
  if (model.out.empty()) problems.add("no OUT folder given");
  if (model.family != "llama" && model.family != "mistral" && model.family != "qwen2")
    problems.add("unknown family " + model.family);
  if (model.dtype != "f32" && model.dtype != "bf16") problems.add("unknown dtype " + model.dtype);
  if (model.layers < 1 || model.hidden < 2 || model.shards < 1)
    problems.add("layers, hidden and shards must be positive");
  if (model.hidden % model.heads != 0 || model.head_dim() % 2 != 0)
    problems.add("hidden / heads must be an even whole number");
  if (model.heads % model.kv_heads != 0) problems.add("heads must be a multiple of kv-heads");
  if (model.vocab < 256 + kSpecials)
    problems.add(format("vocab is {}, but must be at least {}", model.vocab, 256 + kSpecials));
  problems.throw_if_any(kUsage);
}

void write_model(const TinyModel& model) {
  const std::filesystem::path folder(model.out);
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "config.json", dump_json(config_json(model)));
  write_file_atomically(folder / "generation_config.json",
                        dump_json({{"bos_token_id", first_special(model)},
                                   {"eos_token_id", first_special(model) + 1},
                                   {"pad_token_id", first_special(model) + 2}}));
  write_file_atomically(folder / "tokenizer.json", dump_json(tokenizer_json(model)));
  write_file_atomically(folder / "tokenizer_config.json", dump_json(tokenizer_config()));
  write_weights(model, folder);
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  try {
    const espalier::TinyModel model = espalier::parse({argv + 1, argv + argc});
    espalier::check(model);
    espalier::write_model(model);
    return 0;
  } catch (const espalier::Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
