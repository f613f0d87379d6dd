// Pruned folders and GGUF files, byte by byte, and what is refused.
#include "espalier/surgery/prune_files.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/io/hf_folder.h"

#include "tests/support/tiny_model.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;
using Layers = std::vector<std::int64_t>;

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

template <class Tensor>
bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape && std::ranges::equal(a.data, b.data);
}

struct StopAtOnce final : StopToken {
  bool stop_requested() const override { return true; }
};

TEST(PruneFolder, KeptBytesAreEqualAndRenumbered) {
  TemporaryFolder dir;
  for (const std::size_t shards : {1u, 3u}) {
    const fs::path source = dir / format("source{}", shards), out = dir / format("out{}", shards);
    TinyDecoder{.layers = 5}.write_folder(source, shards);
    write_file_atomically(source / "tokenizer.json", "{\"any\": 1}");
    fs::create_directory(out);
    const PrunedFiles result =
        prune_hf_folder(source, {0, 2, 3}, out, silent_reporter(), never_stop());

    const HfFolder before = HfFolder::open(source), after = HfFolder::open(out);
    EXPECT_EQ(after.tensors().size(), 3 + 3 * 9);
    EXPECT_EQ(result.tensors, 3 + 3 * 9);
    const Layers kept{0, 2, 3};
    for (const StoredTensor& tensor : after.tensors()) {
      const std::int64_t layer = layer_of_tensor(tensor.name);
      const std::string old = layer < 0 ? tensor.name
                                        : layer_prefix(kept[static_cast<std::size_t>(layer)]) +
                                              tensor.name.substr(layer_prefix(layer).size());
      ASSERT_NE(before.find(old), nullptr) << old;
      EXPECT_TRUE(same_bytes(tensor, *before.find(old))) << tensor.name;
    }
    EXPECT_EQ(parse_json(after.config_text(), "")["num_hidden_layers"], 3);
    EXPECT_EQ(read_file(out / "tokenizer.json"), "{\"any\": 1}");
    EXPECT_TRUE(fs::exists(out / "generation_config.json"));
    EXPECT_FALSE(fs::exists(out / "model.safetensors.index.json"));
    std::uint64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(out)) bytes += entry.file_size();
    EXPECT_EQ(result.bytes, bytes);
    ASSERT_EQ(result.digests.size(), 1u);
    EXPECT_TRUE(result.digests[0].second.starts_with("xxh3:"));
  }
}

TEST(PruneFolder, RefusalsNameWhatIsWrong) {
  TemporaryFolder dir;
  TinyDecoder{}.write_folder(dir / "source");
  fs::create_directory(dir / "out");
  const auto prune = [&](const Layers& kept) {
    return error_of([&] {
      prune_hf_folder(dir / "source", kept, dir / "out", silent_reporter(), never_stop());
    });
  };
  EXPECT_TRUE(has(prune({}).message(), "empty"));
  EXPECT_TRUE(has(prune({0, 4}).message(), "layer 4 is out of range"));
  EXPECT_TRUE(has(prune({1, 0}).message(), "comes after"));
  EXPECT_TRUE(fs::is_empty(dir / "out"));
  EXPECT_THROW(
      prune_hf_folder(dir / "source", {0, 1}, dir / "out", silent_reporter(), StopAtOnce()),
      Interrupted);
  // A gap in the source: layer 1 renamed away.
  SafetensorsWriter gap(
      dir / "source" / "model.safetensors",
      {{"model.layers.0.a", Dtype::kU8, {1}}, {"model.layers.2.a", Dtype::kU8, {1}}});
  const std::byte one[1] = {};
  gap.append(one);
  gap.append(one);
  gap.finish();
  EXPECT_TRUE(has(prune({0}).message(), "layer 1 has no tensors, although layer 2 has"));
}

TEST(PruneGguf, ArraysAreFilteredBytesCopiedCountsSet) {
  TemporaryFolder dir;
  const std::int32_t heads[] = {4, 4, 4, 4, 4}, ffn[] = {10, 11, 12, 13, 14},
                     sections[] = {1, 2, 3, 4, 5};
  TinyDecoder{.layers = 5}.write_gguf(
      dir / "in.gguf", GgufType::kQ8_0,
      {{"llama.per_layer", GgufValue::i32s(ffn)},
       {"llama.heads_again", GgufValue::i32s(heads)},
       {"llama.rope.dimension_sections", GgufValue::i32s(sections)},
       {"llama.names", GgufValue::strings({"a", "b", "c", "d", "e"})},
       {"tokenizer.ggml.tokens", GgufValue::strings({"a", "b", "c", "d", "e"})},
       {"llama.leading_dense_block_count", GgufValue::u32(3)},
       {"llama.attention.sliding_window_pattern", GgufValue::u32(2)}});
  const PrunedFiles result = prune_gguf_file(dir / "in.gguf", {0, 3, 4}, dir / "out.gguf",
                                             silent_reporter(), never_stop());
  const GgufFile before = GgufFile::open(dir / "in.gguf"), after = GgufFile::open(dir / "out.gguf");
  EXPECT_EQ(after.get_uint("llama.block_count"), 3u);
  EXPECT_EQ(after.get_ints("llama.per_layer"), (std::vector<std::int64_t>{10, 13, 14}));
  EXPECT_EQ(after.get_strings("llama.names"), (std::vector<std::string>{"a", "d", "e"}));
  EXPECT_EQ(after.get_ints("llama.rope.dimension_sections")->size(), 5u);
  EXPECT_EQ(after.get_strings("tokenizer.ggml.tokens")->size(), 5u);
  EXPECT_EQ(after.get_uint("llama.leading_dense_block_count"), 1u);
  // Period 2: even layers have a window. Layers 0, 3, 4 keep theirs.
  const auto* pattern =
      std::get_if<GgufArray>(&after.find("llama.attention.sliding_window_pattern")->value);
  ASSERT_NE(pattern, nullptr);
  EXPECT_EQ(pattern->raw, std::string("\1\0\1", 3));
  EXPECT_EQ(after.tensors().size(), 3 + 3 * 9);
  EXPECT_EQ(result.tensors, 3 + 3 * 9);
  EXPECT_EQ(result.bytes, fs::file_size(dir / "out.gguf"));
  EXPECT_TRUE(same_bytes(*after.find_tensor("blk.1.ffn_up.weight"),
                         *before.find_tensor("blk.3.ffn_up.weight")));
  EXPECT_TRUE(same_bytes(*after.find_tensor("blk.2.attn_q.weight"),
                         *before.find_tensor("blk.4.attn_q.weight")));
  EXPECT_TRUE(same_bytes(*after.find_tensor("token_embd.weight"),
                         *before.find_tensor("token_embd.weight")));
}

/// A gemma file as far as pruning looks at it.
void write_gemma(const fs::path& path, const std::string& arch, std::int64_t layers,
                 std::int64_t heads, const std::vector<std::pair<std::string, GgufValue>>& more) {
  const auto u32 = [](std::int64_t v) { return GgufValue::u32(static_cast<std::uint32_t>(v)); };
  std::vector<std::pair<std::string, GgufValue>> metadata{
      {"general.architecture", GgufValue::string(arch)},
      {arch + ".block_count", u32(layers)},
      {arch + ".embedding_length", u32(32)},
      {arch + ".attention.head_count", u32(heads)},
      {arch + ".attention.key_length", u32(8)},
      {arch + ".attention.sliding_window", u32(4)}};
  metadata.insert(metadata.end(), more.begin(), more.end());
  std::vector<GgufTensorPlan> plan;
  for (std::int64_t i = 0; i < layers; ++i)
    plan.push_back({format("blk.{}.attn_norm.weight", i), GgufType::kF32, {1}});
  GgufWriter writer(path, metadata, plan);
  const float one[] = {1};
  for (std::int64_t i = 0; i < layers; ++i) writer.append(std::as_bytes(std::span(one)));
  writer.finish();
}

TEST(PruneGguf, GemmaKeepsThePeriodOfItsWindows) {
  TemporaryFolder dir;
  const std::string key = ".attention.sliding_window_pattern";
  const auto period = [&](const std::string& arch, std::int64_t layers, const Layers& kept,
                          const std::vector<std::pair<std::string, GgufValue>>& more = {}) {
    write_gemma(dir / "in.gguf", arch, layers, 4, more);
    prune_gguf_file(dir / "in.gguf", kept, dir / "out.gguf", silent_reporter(), never_stop());
    return GgufFile::open(dir / "out.gguf").get_uint(arch + key);
  };
  EXPECT_EQ(period("gemma2", 6, {0, 1, 4, 5}), std::nullopt) << "the usual one needs no key";
  EXPECT_EQ(period("gemma2", 6, {1, 3, 5}), 1u) << "no window is left";
  EXPECT_EQ(period("gemma2", 6, {0, 2, 4}), 4u) << "all have one";
  // Of 12 layers 5 and 11 see everything; without one of each six, every fifth does.
  EXPECT_EQ(period("gemma3", 12, {0, 2, 3, 4, 5, 6, 7, 9, 10, 11}), 5u);
  // A period of 3 in the file: 2 and 5 see everything, 0 1 2 5 do not repeat, 1 2 4 5 every second.
  EXPECT_EQ(period("gemma3", 6, {1, 2, 4, 5}, {{"gemma3" + key, GgufValue::u32(3)}}), 2u);
}

TEST(PruneGguf, GemmaIsRefusedWhereNoKeyCanSayIt) {
  TemporaryFolder dir;
  const auto refusal = [&](const std::string& arch, std::int64_t layers, std::int64_t heads,
                           const Layers& kept) {
    write_gemma(dir / "in.gguf", arch, layers, heads, {});
    return error_of([&] {
      prune_gguf_file(dir / "in.gguf", kept, dir / "out.gguf", silent_reporter(), never_stop());
    });
  };
  const Error pattern = refusal("gemma2", 6, 4, {0, 1, 2, 4, 5});
  EXPECT_EQ(pattern.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(has(pattern.message(), "layer 4 would change its role as layer 3, and no other"))
      << pattern.message();
  // Heads of 8, but 32 / 2 = 16 is what readers take where the number of layers is the largest's.
  Layers kept;
  for (std::int64_t i = 0; i < 44; ++i) kept.push_back(i);
  EXPECT_TRUE(has(refusal("gemma2", 46, 2, kept).message(), "from 46 to 44"));
  write_gemma(dir / "same.gguf", "gemma2", 46, 4, {});  // 32 / 4 = 8 either way
  EXPECT_NO_THROW(
      prune_gguf_file(dir / "same.gguf", kept, dir / "out.gguf", silent_reporter(), never_stop()));
}

TEST(PruneGguf, SplitFilesAreJoined) {
  TemporaryFolder dir;
  const TinyDecoder tiny{.layers = 4};
  tiny.write_gguf(dir / "whole.gguf", GgufType::kF32);
  const GgufFile whole = GgufFile::open(dir / "whole.gguf");
  const std::size_t half = whole.tensors().size() / 2;
  for (std::uint16_t part = 0; part < 2; ++part) {
    auto metadata =
        part == 0 ? tiny.gguf_metadata() : std::vector<std::pair<std::string, GgufValue>>{};
    GgufValue number = GgufValue::u32(part), count = GgufValue::u32(2),
              tensors = GgufValue::u32(static_cast<std::uint32_t>(whole.tensors().size()));
    number.type = count.type = GgufValueType::kU16;
    tensors.type = GgufValueType::kI32;
    tensors.value = static_cast<std::int64_t>(whole.tensors().size());
    metadata.emplace_back("split.no", number);
    metadata.emplace_back("split.count", count);
    metadata.emplace_back("split.tensors.count", tensors);
    std::vector<GgufTensorPlan> plan;
    const std::span<const GgufTensor> mine = part == 0 ? std::span(whole.tensors()).first(half)
                                                       : std::span(whole.tensors()).subspan(half);
    for (const GgufTensor& tensor : mine) plan.push_back({tensor.name, tensor.type, tensor.shape});
    GgufWriter writer(dir / format("model-{:05}-of-00002.gguf", part + 1), metadata, plan);
    for (const GgufTensor& tensor : mine) writer.append(tensor);
    writer.finish();
  }
  const fs::path first = dir / "model-00001-of-00002.gguf";
  prune_gguf_file(first, {0, 1, 3}, dir / "out.gguf", silent_reporter(), never_stop());
  prune_gguf_file(dir / "whole.gguf", {0, 1, 3}, dir / "expected.gguf", silent_reporter(),
                  never_stop());
  EXPECT_EQ(read_file(dir / "out.gguf"), read_file(dir / "expected.gguf"));
  EXPECT_NO_THROW(verify_pruned(first, {0, 1, 3}, dir / "out.gguf", silent_reporter()));
}

TEST(PruneGguf, InconsistentFilesAreRefusedWithKeyAndBothLengths) {
  TemporaryFolder dir;
  const std::int32_t three[] = {1, 2, 3};
  const auto refusal = [&](const std::vector<std::pair<std::string, GgufValue>>& more,
                           const Layers& kept) {
    TinyDecoder{}.write_gguf(dir / "in.gguf", GgufType::kQ8_0, more);
    return error_of([&] {
      prune_gguf_file(dir / "in.gguf", kept, dir / "out.gguf", silent_reporter(), never_stop());
    });
  };
  const Error array = refusal({{"llama.per_layer", GgufValue::i32s(three)}}, {0, 1});
  EXPECT_EQ(array.kind(), ErrorKind::kInput);
  EXPECT_TRUE(has(array.message(), "llama.per_layer has 3 entries, but llama.block_count is 4"))
      << array.message();
  EXPECT_FALSE(fs::exists(dir / "out.gguf"));
  const Error shared =
      refusal({{"llama.attention.shared_kv_layers", GgufValue::u32(1)}}, {0, 1, 2});
  EXPECT_EQ(shared.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(has(shared.message(), "layers 1-3 share keys and values")) << shared.message();
  EXPECT_TRUE(
      has(refusal({{"llama.interleave_moe_layer_step", GgufValue::u32(2)}}, {0, 2, 3}).message(),
          "groups of 2"));
  EXPECT_TRUE(has(refusal({}, {}).message(), "empty"));
  EXPECT_THROW(
      prune_gguf_file(dir / "in.gguf", {0}, dir / "out.gguf", silent_reporter(), StopAtOnce()),
      Interrupted);
  EXPECT_FALSE(fs::exists(dir / "out.gguf"));
}

}  // namespace
}  // namespace espalier
