// The decoder against transformers' numbers and against itself: caches, packing, streaming,
// skipping, formats.
#include "espalier/models/decoder/decoder.h"

#include <gtest/gtest.h>

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/models/decoder/quantized_forward.h"
#include "espalier/models/decoder/test_files_internal.h"

namespace espalier {
namespace {

using namespace decoder_test;

const std::vector<std::string> kFamilies{"llama",  "mistral", "qwen2", "smollm3", "qwen3",
                                         "gemma2", "olmo2",   "phi3",  "gemma3"};

std::filesystem::path fixture(const std::string& family) {
  return std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier/models/decoder/testdata" / family;
}

at::Tensor expected(const std::string& family, const std::string& name) {
  const SafetensorsFile file = SafetensorsFile::open(fixture(family) / "expected.safetensors");
  const StoredTensor& tensor = *file.find(name);
  return view_bytes(tensor.data, tensor.dtype, tensor.shape, tensor.file).clone();
}

Decoder load(const std::string& family, at::ScalarType type = at::kFloat,
             Residency residency = Residency::kResident) {
  return Decoder::load(fixture(family), type, at::kCPU, residency);
}

at::Tensor hidden(const Decoder& model, const at::Tensor& ids) {
  c10::NoGradGuard no_grad;
  return model.run_layers(model.embed(ids), 0, model.num_layers(), model.context(ids.size(1)));
}

class FamilyTest : public testing::TestWithParam<std::string> {};

TEST_P(FamilyTest, LogitsOfTransformers) {
  const at::Tensor ids = expected(GetParam(), "ids"), theirs = expected(GetParam(), "logits");
  const at::Tensor ours = load(GetParam()).forward(ids);
  EXPECT_EQ(ours.sizes(), theirs.sizes());
  EXPECT_LT((ours - theirs).abs().max().item<float>(), 1e-4f);
  // bfloat16 keeps 8 bits (0.4 %); the roundings of a few blocks add up to 2-3 % here, as they do
  // in transformers.
  const at::Tensor rough = load(GetParam(), at::kBFloat16).forward(ids);
  EXPECT_EQ(rough.scalar_type(), at::kFloat);
  EXPECT_LT((rough - theirs).square().mean().sqrt().item<float>() /
                theirs.square().mean().sqrt().item<float>(),
            0.05f);
}

TEST_P(FamilyTest, GreedyTokensOfTransformersWithACache) {
  c10::NoGradGuard no_grad;
  const Decoder model = load(GetParam());
  const at::Tensor prompt = expected(GetParam(), "ids").narrow(0, 0, 1).narrow(1, 0, 4),
                   theirs = expected(GetParam(), "greedy");
  KvCache cache(model.config(), 1, 16, model.type(), model.device());
  at::Tensor ids = prompt;
  for (std::int64_t i = 0; i < theirs.numel(); ++i) {
    const std::int64_t tokens = ids.size(1);
    const at::Tensor h = model.run_layers(model.embed(ids), 0, model.num_layers(),
                                          model.context(tokens, cache.length()), &cache);
    Decoder::advance(cache, tokens);
    ids = model.logits(model.final_norm(h.narrow(1, tokens - 1, 1))).argmax(-1);
    EXPECT_EQ(ids.item<std::int64_t>(), theirs[i].item<std::int64_t>()) << "token " << i;
  }
}

TEST_P(FamilyTest, CacheInPiecesEqualsTheWhole) {
  c10::NoGradGuard no_grad;
  const Decoder model = load(GetParam());
  const at::Tensor ids = expected(GetParam(), "ids"), whole = hidden(model, ids);
  KvCache cache(model.config(), 2, 12, model.type(), model.device());
  std::vector<at::Tensor> parts;
  for (const std::int64_t tokens : {5, 1, 4, 1, 1}) {
    const std::int64_t start = cache.length();
    parts.push_back(model.run_layers(model.embed(ids.narrow(1, start, tokens)), 0,
                                     model.num_layers(), model.context(tokens, start), &cache));
    Decoder::advance(cache, tokens);
  }
  EXPECT_TRUE(at::allclose(at::cat(parts, 1), whole, 1e-4, 1e-4));
  EXPECT_THROW(model.run_layer(whole.narrow(1, 0, 1), 0, model.context(1, 12), &cache), Error)
      << "the cache is full";
}

TEST_P(FamilyTest, PackedRowsHaveTheBitsOfSingleRows) {
  c10::NoGradGuard no_grad;
  const Decoder model = load(GetParam());
  const at::Tensor row = expected(GetParam(), "ids").narrow(0, 0, 1);
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{12, 9, 11}, {10, 10, 10}, {12}}) {
    std::vector<at::Tensor> rows;
    for (const std::int64_t length : lengths) rows.push_back(row.narrow(1, 12 - length, length));
    const at::Tensor packed = model.run_layers(model.embed(at::cat(rows, 1)), 0, model.num_layers(),
                                               model.packed_context(lengths));
    std::int64_t start = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_TRUE(packed.narrow(1, start, lengths[i]).equal(hidden(model, rows[i]))) << i;
      start += lengths[i];
    }
  }
}

TEST(Decoder, PackedRowsTakeTheRotaryFactorsOfTheirOwnLength) {
  c10::NoGradGuard no_grad;
  const Decoder model = load("phi3");
  const auto limit = static_cast<std::int64_t>(model.config().rope_scaling.original_context);
  const at::Tensor long_row = at::arange(limit + 3, at::kLong).remainder(50).unsqueeze(0),
                   short_row = long_row.narrow(1, 1, limit - 1);
  const std::vector<std::int64_t> lengths{limit - 1, limit + 3, limit - 1};
  const at::Tensor packed =
      model.run_layers(model.embed(at::cat({short_row, long_row, short_row}, 1)), 0,
                       model.num_layers(), model.packed_context(lengths));
  // Not to the bit: rows this short go through another product when they are alone.
  const auto expect = [&](std::int64_t start, const at::Tensor& row) {
    EXPECT_TRUE(at::allclose(packed.narrow(1, start, row.size(1)), hidden(model, row), 1e-5, 1e-5))
        << start;
  };
  expect(0, short_row);
  expect(limit - 1, long_row);
  expect(2 * limit + 2, short_row);
}

TEST_P(FamilyTest, BatchRowsKeepTheirBits) {
  const Decoder model = load(GetParam());
  const at::Tensor ids = expected(GetParam(), "ids"), both = hidden(model, ids);
  for (std::int64_t i = 0; i < 2; ++i)
    EXPECT_TRUE(hidden(model, ids.narrow(0, i, 1)).equal(both.narrow(0, i, 1)));
}

TEST_P(FamilyTest, StreamedEqualsResident) {
  const at::Tensor ids = expected(GetParam(), "ids");
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Decoder streamed = load(GetParam(), type, Residency::kStreamed);
    EXPECT_TRUE(hidden(streamed, ids).equal(hidden(load(GetParam(), type), ids)));
    EXPECT_THROW(streamed.block(0), Error);
  }
}

TEST_P(FamilyTest, SkippingLayersKeepsTheirSwitches) {
  c10::NoGradGuard no_grad;
  const Decoder model = load(GetParam());
  std::vector<std::int64_t> kept;
  for (std::int64_t i = 0; i < model.num_layers(); ++i) {
    if (i != 1) kept.push_back(i);
  }
  const Decoder smaller = model.with_layers(kept);
  EXPECT_EQ(smaller.num_layers(), model.num_layers() - 1);
  EXPECT_EQ(smaller.config().num_layers, smaller.num_layers());
  const at::Tensor ids = expected(GetParam(), "ids");
  at::Tensor h = model.embed(ids);
  const AttentionContext context = model.context(ids.size(1));
  for (const std::int64_t layer : kept) h = model.run_layer(h, layer, context);
  EXPECT_TRUE(hidden(smaller, ids).equal(h));
  EXPECT_EQ(smaller.with_layers({0}).config().window,
            (std::vector<std::int64_t>{model.config().window[0]}));
  EXPECT_THROW(model.with_layers({99}), Error);
}

TEST_P(FamilyTest, ShortForwardFromTheBytes) {
  const auto checkpoint = DecoderCheckpoint::open(fixture(GetParam()));
  const Decoder model = load(GetParam());
  const at::Tensor ids = expected(GetParam(), "ids").narrow(0, 0, 1).narrow(1, 0, 4);
  const std::vector<std::int64_t> list(ids.data_ptr<std::int64_t>(),
                                       ids.data_ptr<std::int64_t>() + 4);
  std::vector<std::int64_t> all, seen;
  for (std::int64_t i = 0; i < model.num_layers(); ++i) all.push_back(i);
  const at::Tensor h =
      last_hidden(*checkpoint, all, list,
                  [&](std::int64_t position, const at::Tensor&) { seen.push_back(position); });
  EXPECT_TRUE(at::allclose(h.unsqueeze(0), hidden(model, ids), 1e-4, 1e-4));
  EXPECT_EQ(seen.size(), all.size() + 1);
  EXPECT_EQ(seen.front(), -1);
  EXPECT_TRUE(at::allclose(last_hidden(*checkpoint, {0}, list).unsqueeze(0),
                           hidden(model.with_layers({0}), ids), 1e-4, 1e-4));
  EXPECT_THROW(last_hidden(*checkpoint, {99}, list), Error);
  EXPECT_THROW(last_hidden(*checkpoint, all, {48}), Error);
  EXPECT_THROW(last_hidden(*checkpoint, all, {}), Error);
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyTest, testing::ValuesIn(kFamilies),
                         [](const auto& param) { return param.param; });

TEST(DecoderTest, LongropeTurnsEveryRowByItsOwnLength) {
  c10::NoGradGuard no_grad;
  const Decoder model = load("phi3");  // other factors beyond 3 tokens
  const at::Tensor ids = expected("phi3", "ids").narrow(0, 0, 1);
  const at::Tensor a = ids.narrow(1, 0, 3), b = ids.narrow(1, 3, 5);
  const at::Tensor packed = model.run_layers(model.embed(at::cat({a, b}, 1)), 0, model.num_layers(),
                                             model.packed_context({3, 5}));
  // The other factors would change the second decimal.
  EXPECT_TRUE(at::allclose(packed.narrow(1, 0, 3), hidden(model, a), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(packed.narrow(1, 3, 5), hidden(model, b), 1e-5, 1e-5));

  KvCache cache(model.config(), 1, 8, model.type(), model.device());
  EXPECT_TRUE(model.serves(cache, 8)) << "an empty cache serves any length";
  model.run_layers(model.embed(a), 0, model.num_layers(), model.context(3), &cache);
  Decoder::advance(cache, 3);
  EXPECT_TRUE(model.serves(cache, 3));
  EXPECT_FALSE(model.serves(cache, 4));
  EXPECT_THROW(model.run_layer(model.embed(b), 0, model.context(5, 3), &cache), Error);
  cache.truncate(0);
  model.run_layers(model.embed(a), 0, model.num_layers(), model.context(3, 0, 8), &cache);
  Decoder::advance(cache, 3);
  EXPECT_TRUE(model.serves(cache, 8));
  const at::Tensor rest =
      model.run_layers(model.embed(b), 0, model.num_layers(), model.context(5, 3), &cache);
  EXPECT_TRUE(at::allclose(rest, hidden(model, ids.narrow(1, 0, 8)).narrow(1, 3, 5), 1e-4, 1e-4));
  cache.truncate(2);
  EXPECT_FALSE(model.serves(cache, 3)) << "the keys were turned for a longer text";
}

TEST(DecoderTest, GgufEqualsTheFolderItCameFrom) {
  // Mistral's tensors under the llama architecture, as converters write them; the window is our
  // key.
  for (const std::string family : {"mistral", "qwen2", "qwen3", "olmo2"}) {
    const auto folder = DecoderCheckpoint::open(fixture(family));
    DecoderConfig config = folder->config();
    Tensors tensors;
    for (const TensorSpec& spec : decoder_tensor_specs(config))
      tensors[spec.name] = folder->load(spec.name, at::kFloat, at::kCPU);
    ScratchFolder scratch;
    const std::string arch = family == "mistral" ? "llama" : family;
    write_gguf(scratch / "m.gguf", config, arch, tensors, {}, arch == "llama");
    const Decoder a = Decoder::load(scratch / "m.gguf", at::kFloat, at::kCPU), b = load(family);
    const at::Tensor ids = expected(family, "ids").narrow(1, 0, 4);  // within every window
    EXPECT_TRUE(a.forward(ids).equal(b.forward(ids))) << family;
    const auto gguf = DecoderCheckpoint::open(scratch / "m.gguf");
    EXPECT_TRUE(at::allclose(last_hidden(*gguf, {0, 1}, {5, 6, 7}),
                             last_hidden(*folder, {0, 1}, {5, 6, 7}), 1e-5, 1e-5))
        << family;
  }
}

/// A fixture as a GGUF file: gemma's norms one above, its settings and phi3's under their keys.
void write_family_gguf(const std::filesystem::path& file, const std::string& family) {
  const auto folder = DecoderCheckpoint::open(fixture(family));
  const DecoderConfig& config = folder->config();
  Tensors tensors;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) {
    at::Tensor value = folder->load(spec.name, at::kFloat, at::kCPU);
    tensors[spec.name] =
        config.norm_plus_one && spec.name.ends_with("norm.weight") ? value + 1 : value;
  }
  const auto f32 = [](double v) { return GgufValue::f32(static_cast<float>(v)); };
  std::vector<std::pair<std::string, GgufValue>> extra{
      {family + ".attention.sliding_window", GgufValue::u32(family == "phi3" ? 7 : 5)}};
  if (config.norm_plus_one)
    extra.emplace_back(family + ".attention.scale", f32(config.attention_scale));
  if (family == "gemma2") {
    extra.emplace_back(family + ".attn_logit_softcapping", f32(3));
    extra.emplace_back(family + ".final_logit_softcapping", f32(4));
  } else if (family == "gemma3") {
    extra.emplace_back(family + ".attention.sliding_window_pattern", GgufValue::u32(3));
    extra.emplace_back(family + ".rope.freq_base_swa", f32(10000));
    extra.emplace_back(family + ".rope.scaling.type", GgufValue::string("linear"));
    extra.emplace_back(family + ".rope.scaling.factor", f32(8));
  } else {
    tensors["rope_factors_short.weight"] = at::tensor({1.0f, 1.25f});
    tensors["rope_factors_long.weight"] = at::tensor({1.5f, 4.0f});
    extra.emplace_back(family + ".rope.dimension_count", GgufValue::u32(4));
    extra.emplace_back(family + ".rope.scaling.original_context_length", GgufValue::u32(3));
    extra.emplace_back(family + ".rope.scaling.attn_factor",
                       f32(config.rope_scaling.attention_factor));
  }
  write_gguf(file, config, family, tensors, extra, false);
}

TEST(DecoderTest, GgufFilesOfGemmaAndPhiEqualTheirFolders) {
  for (const std::string family : {"gemma2", "gemma3", "phi3"}) {
    ScratchFolder scratch;
    write_family_gguf(scratch / "m.gguf", family);
    const Decoder ours = Decoder::load(scratch / "m.gguf", at::kFloat, at::kCPU);
    EXPECT_EQ(ours.config().window, load(family).config().window) << family;
    const at::Tensor difference =
        ours.forward(expected(family, "ids")) - expected(family, "logits");
    EXPECT_LT(difference.abs().max().item<float>(), 1e-4f) << family;
    const auto file = DecoderCheckpoint::open(scratch / "m.gguf"),
               folder = DecoderCheckpoint::open(fixture(family));
    EXPECT_TRUE(at::allclose(last_hidden(*file, {0, 1}, {5, 6, 7, 8}),
                             last_hidden(*folder, {0, 1}, {5, 6, 7, 8}), 1e-4, 1e-4))
        << family;
  }
}

TEST(DecoderTest, DecodingFromTheGgufFileKeepsEveryBit) {
  for (const std::string family : {"mistral", "qwen2"}) {  // permuted rows; biases
    const auto folder = DecoderCheckpoint::open(fixture(family));
    const DecoderConfig config = folder->config();
    Tensors tensors;
    for (const TensorSpec& spec : decoder_tensor_specs(config))
      tensors[spec.name] = folder->load(spec.name, at::kFloat, at::kCPU);
    ScratchFolder scratch;
    const std::string arch = family == "mistral" ? "llama" : family;
    write_gguf(scratch / "m.gguf", config, arch, tensors, {}, arch == "llama");
    Decoder model = Decoder::load(scratch / "m.gguf", at::kFloat, at::kCPU);
    const at::Tensor ids = expected(family, "ids").narrow(0, 0, 1);
    std::vector<at::Tensor> before;
    for (const std::int64_t tokens : {1, 3})
      before.push_back(model.forward(ids.narrow(1, 0, tokens)));
    model.decode_from_file();
    EXPECT_NE(model.block(0).self_attn.q_proj.stored, nullptr);
    EXPECT_NE(model.block(1).mlp.down_proj.stored, nullptr);
    // What is compared must be the file's bytes: the matrices in memory are spoiled.
    for (std::int64_t layer = 0; layer < model.num_layers(); ++layer)
      model.block(layer).mlp.up_proj.weight.zero_();
    EXPECT_TRUE(model.forward(ids.narrow(1, 0, 1)).equal(before[0])) << family;
    EXPECT_TRUE(model.forward(ids.narrow(1, 0, 3)).equal(before[1])) << family;
  }
}

TEST(DecoderTest, TiedHeadSharesStorageUntilUntied) {
  Decoder model = load("llama");
  EXPECT_EQ(model.head_weight().data_ptr(), model.embedding().data_ptr());
  Decoder copy = model;
  copy.untie_head();
  EXPECT_NE(copy.head_weight().data_ptr(), copy.embedding().data_ptr());
  EXPECT_TRUE(copy.head_weight().equal(copy.embedding()));
  EXPECT_FALSE(copy.config().tied_embeddings);
  EXPECT_TRUE(model.config().tied_embeddings) << "the other model must not change";
}

TEST(DecoderTest, ParametersInCanonicalOrder) {
  for (const std::string& family : kFamilies) {
    Decoder model = load(family);
    std::vector<std::string> names;
    std::int64_t count = 0;
    model.for_each_parameter([&](const std::string& name, at::Tensor& tensor) {
      names.push_back(name);
      count += tensor.numel();
    });
    std::vector<std::string> wanted;
    for (const TensorSpec& spec : decoder_tensor_specs(model.config())) wanted.push_back(spec.name);
    EXPECT_EQ(names, wanted);
    EXPECT_EQ(count, model.config().parameters());
  }
}

TEST(DecoderTest, IdsOutsideTheVocabulary) {
  const Decoder model = load("llama");
  for (const std::int64_t id : {std::int64_t{-1}, std::int64_t{48}}) {
    try {
      model.embed(at::full({1, 2}, id, at::kLong));
      FAIL() << id;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_NE(std::string(error.what()).find(std::to_string(id)), std::string::npos);
    }
  }
}

TEST(DecoderTest, UnsupportedComputeType) {
  try {
    load("llama", at::kHalf);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  }
}

/// The loss of packed rows through every trainable tensor.
double loss_of(const Decoder& model, const at::Tensor& ids) {
  const at::Tensor h = model.final_norm(
      model.run_layers(model.embed(ids), 0, model.num_layers(), model.packed_context({7, 5})));
  return linear_cross_entropy(h.squeeze(0), model.head_weight(), ids.squeeze(0).roll(-1), 1.0 / 12)
      .item<double>();
}

TEST(DecoderTest, GradientsAreFiniteDifferences) {
  for (const std::string& family : kFamilies) {
    Decoder model = load(family);
    const at::Tensor ids = expected(family, "ids").narrow(0, 0, 1);
    std::vector<at::Tensor> leaves;
    model.for_each_parameter([&](const std::string&, at::Tensor& tensor) {
      tensor = tensor.clone().requires_grad_();
      leaves.push_back(tensor);
    });
    const at::Tensor h = model.final_norm(
        model.run_layers(model.embed(ids), 0, model.num_layers(), model.packed_context({7, 5})));
    const at::Tensor loss =
        linear_cross_entropy(h.squeeze(0), model.head_weight(), ids.squeeze(0).roll(-1), 1.0 / 12);
    const auto grads = torch::autograd::grad({loss}, leaves);
    c10::NoGradGuard no_grad;
    // Along the gradient itself the slope is its squared length; one number checks all tensors.
    double squared = 0;
    for (const at::Tensor& grad : grads)
      squared += grad.to(at::kDouble).square().sum().item<double>();
    const double step = 1e-3 / std::sqrt(squared);
    const auto move = [&](double by) {
      for (std::size_t i = 0; i < leaves.size(); ++i) leaves[i].add_(grads[i], by);
    };
    move(step);
    const double up = loss_of(model, ids);
    move(-2 * step);
    const double down = loss_of(model, ids);
    EXPECT_NEAR((up - down) / (2 * step) / squared, 1, 0.02) << family;
  }
}

}  // namespace
}  // namespace espalier
