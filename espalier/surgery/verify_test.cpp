// The verifier passes honest results, in both formats, and names the first layer of dishonest ones.
#include <fstream>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/io/hf_folder.h"
#include "espalier/surgery/prune_files.h"

#include "tests/support/tiny_model.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;
using Layers = std::vector<std::int64_t>;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal);
    return error.message();
  }
  return "nothing was thrown";
}

/// Flips the sign of one float32 (or whatever lies there) in a file.
void damage(const fs::path& file, std::uint64_t offset) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  char byte = 0;
  stream.get(byte);
  stream.seekp(static_cast<std::streamoff>(offset));
  stream.put(static_cast<char>(byte ^ 0x80));
}

TEST(VerifyPruned, FoldersOfBothFamilies) {
  TemporaryFolder dir;
  for (const bool qwen : {false, true}) {
    const fs::path source = dir / format("source{}", qwen), out = dir / format("out{}", qwen);
    TinyDecoder{.layers = 5, .tied = qwen, .qwen2 = qwen}.write_folder(source, 2);
    fs::create_directory(out);
    prune_hf_folder(source, {0, 1, 4}, out, silent_reporter(), never_stop());
    EXPECT_NO_THROW(verify_pruned(source, {0, 1, 4}, out, silent_reporter()));
    EXPECT_EQ(
        message_of([&] {
          verify_pruned(source, {0, 2, 4}, out, silent_reporter());
        }),
        "layer 1 gives other hidden states than layer 2 of the source, which it should equal");
    EXPECT_EQ(message_of([&] {
                verify_pruned(source, {0, 4}, out, silent_reporter());
              }),
              "holds 3 layers, but 2 were kept");
  }
}

TEST(VerifyPruned, EveryTensorCounts) {
  TemporaryFolder dir;
  const fs::path source = dir / "source", out = dir / "out";
  TinyDecoder{.layers = 3}.write_folder(source);
  fs::create_directory(out);
  prune_hf_folder(source, {0, 2}, out, silent_reporter(), never_stop());
  const auto offset_of = [&](const std::string& name) {
    const HfFolder folder = HfFolder::open(out);
    return folder.find(name)->file_offset() + 3;  // the sign and exponent byte of the first number
  };
  for (const TensorSpec& spec : layer_tensor_specs(TinyDecoder{}.config())) {
    const std::uint64_t at = offset_of(layer_prefix(1) + spec.name);
    damage(out / "model.safetensors", at);
    EXPECT_EQ(message_of([&] {
                verify_pruned(source, {0, 2}, out, silent_reporter());
              }),
              "layer 1 gives other hidden states than layer 2 of the source, which it should equal")
        << spec.name;
    damage(out / "model.safetensors", at);
  }
  for (const char* name : {"model.norm.weight", "lm_head.weight"}) {
    damage(out / "model.safetensors", offset_of(name));
    EXPECT_EQ(message_of([&] {
                verify_pruned(source, {0, 2}, out, silent_reporter());
              }),
              std::string(name) + " differs from the source's");
    damage(out / "model.safetensors", offset_of(name));
  }
  EXPECT_NO_THROW(verify_pruned(source, {0, 2}, out, silent_reporter()));
}

TEST(VerifyPruned, QuantisedGguf) {
  TemporaryFolder dir;
  for (const GgufType type : {GgufType::kQ8_0, GgufType::kQ4_1, GgufType::kF16}) {
    TinyDecoder{.layers = 4}.write_gguf(dir / "in.gguf", type);
    prune_gguf_file(dir / "in.gguf", {0, 1, 3}, dir / "out.gguf", silent_reporter(), never_stop());
    EXPECT_NO_THROW(verify_pruned(dir / "in.gguf", {0, 1, 3}, dir / "out.gguf", silent_reporter()));
    EXPECT_NE(message_of([&] {
                verify_pruned(dir / "in.gguf", {0, 2, 3}, dir / "out.gguf", silent_reporter());
              }),
              "nothing was thrown");
  }
}

}  // namespace
}  // namespace espalier
