// bitsandbytes folders: read as what they stand for, refused with the tensor's name when broken.
#include "espalier/models/decoder/bnb_weights.h"

#include <functional>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/tensor/tensor_view.h"

#include "tests/support/tiny_model.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;

at::Tensor bytes_tensor(const std::string& text) {
  at::Tensor out = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(out.data_ptr(), text.data(), text.size());
  return out;
}

using Tensors = std::map<std::string, at::Tensor>;

/// The tensors that the package writes for one weight.
void add_quantised(Tensors& out, const std::string& name, const Nf4Weight& weight) {
  Json state = {{"quant_type", "nf4"},
                {"blocksize", weight.block},
                {"dtype", "float32"},
                {"shape", weight.shape}};
  out[name] = weight.packed.unsqueeze(1);
  out[name + ".absmax"] = weight.absmax;
  out[name + ".quant_map"] =
      at::tensor(std::vector<float>(nf4_levels().begin(), nf4_levels().end()));
  if (weight.nested()) {
    out[name + ".nested_absmax"] = weight.nested_absmax;
    out[name + ".nested_quant_map"] = weight.nested_map;
    state["nested_blocksize"] = weight.nested_block;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = weight.nested_offset;
  }
  out[name + ".quant_state.bitsandbytes__nf4"] = bytes_tensor(state.dump());
}

void write_weights(const fs::path& folder, const Tensors& tensors) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors)
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(folder / "model.safetensors", plan);
  for (const auto& [name, tensor] : tensors) writer.append(tensor_bytes(tensor.contiguous()));
  writer.finish();
}

class BnbFolder : public testing::Test {
 protected:
  /// The tiny model with its block matrices quantised; `change` may spoil tensors and config.
  void write(bool nested, const std::function<void(Tensors&, Json&)>& change = {}) {
    fs::create_directories(folder_ / "bnb");
    Json config = tiny_.config_json();
    config["quantization_config"] = {{"quant_method", "bitsandbytes"},
                                     {"load_in_4bit", true},
                                     {"load_in_8bit", false},
                                     {"bnb_4bit_quant_type", "nf4"},
                                     {"bnb_4bit_use_double_quant", nested}};
    Tensors tensors;
    for (const TensorSpec& spec : decoder_tensor_specs(tiny_.config())) {
      const at::Tensor value = at::tensor(tiny_.values(spec)).view(spec.shape);
      if (spec.name.find("_proj.weight") != std::string::npos)
        add_quantised(tensors, spec.name, nf4_quantize(value, {nested, 64}));
      else
        tensors[spec.name] = value;
    }
    if (change) change(tensors, config);
    write_file_atomically(folder_ / "bnb/config.json", dump_json(config));
    write_weights(folder_ / "bnb", tensors);
  }
  Error open_error() {
    try {
      DecoderCheckpoint::open(folder_ / "bnb");
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return Error(ErrorKind::kInternal, "", "");
  }
  TinyDecoder tiny_;
  TemporaryFolder folder_;
};

constexpr const char* kName = "model.layers.1.mlp.up_proj.weight";

TEST_F(BnbFolder, ComputesAsTheQuantisedModel) {
  tiny_.write_folder(folder_ / "plain");
  const at::Tensor ids = at::arange(12, at::kLong).view({1, 12});
  for (const bool nested : {false, true}) {
    write(nested);
    Decoder expected = Decoder::load(folder_ / "plain", at::kFloat, at::kCPU);
    quantize_nf4(expected, {nested, 64}, silent_reporter());
    const auto checkpoint =
        std::shared_ptr<const DecoderCheckpoint>(DecoderCheckpoint::open(folder_ / "bnb"));
    EXPECT_TRUE(Decoder::load(checkpoint, at::kFloat, at::kCPU)
                    .forward(ids)
                    .allclose(expected.forward(ids), 1e-5, 1e-5));
    ASSERT_NE(checkpoint->load_nf4(kName, at::kCPU), nullptr);
    EXPECT_EQ(checkpoint->load_nf4("model.norm.weight", at::kCPU), nullptr);
    const Decoder packed =
        load_nf4_decoder(checkpoint, at::kFloat, at::kCPU, {}, silent_reporter());
    EXPECT_TRUE(
        packed.block(1).mlp.up_proj.nf4->packed.equal(expected.block(1).mlp.up_proj.nf4->packed));
    EXPECT_TRUE(packed.forward(ids).equal(expected.forward(ids)));
  }
}

TEST_F(BnbFolder, OtherKindsAreRefusedByName) {
  const auto refused = [&](const char* part, const std::function<void(Tensors&, Json&)>& change) {
    write(false, change);
    const Error error = open_error();
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << part;
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
  };
  refused("bitsandbytes' fp4", [](Tensors&, Json& config) {
    config["quantization_config"]["bnb_4bit_quant_type"] = "fp4";
  });
  refused("bitsandbytes' int8",
          [](Tensors&, Json& config) { config["quantization_config"]["load_in_8bit"] = true; });
  refused("\"awq\"", [](Tensors&, Json& config) {
    config["quantization_config"] = {{"quant_method", "awq"}};
  });
  refused("not an object", [](Tensors&, Json& config) { config["quantization_config"] = "nf4"; });
}

TEST_F(BnbFolder, BrokenWeightsAreNamed) {
  const auto refused = [&](const char* part, const std::function<void(Tensors&)>& change) {
    write(true, [&](Tensors& tensors, Json&) { change(tensors); });
    const Error error = open_error();
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << part;
    EXPECT_NE(error.message().find(part), std::string::npos) << part << "\n" << error.message();
  };
  const std::string name = kName, state = name + ".quant_state.bitsandbytes__nf4";
  refused("up_proj.weight.absmax is missing", [&](Tensors& t) { t.erase(name + ".absmax"); });
  refused("up_proj.weight is missing", [&](Tensors& t) { t.erase(name); });
  refused("elements, expected",
          [&](Tensors& t) { t[name + ".absmax"] = at::zeros({3}, at::kByte); });
  refused("nested_quant_map is missing", [&](Tensors& t) { t.erase(name + ".nested_quant_map"); });
  refused("holds levels of its own", [&](Tensors& t) { t[name + ".quant_map"][3].fill_(0.5); });
  refused("bytes, [64, 32] of NF4 take", [&](Tensors& t) {
    t[name] = at::zeros({5, 1}, at::kByte);
  });
  refused("names no shape", [&](Tensors& t) { t[state] = bytes_tensor("{\"shape\": [1e30, 2]}"); });
  refused("names no shape", [&](Tensors& t) { t[state] = bytes_tensor("{}"); });
  refused("quant_state.bitsandbytes__nf4", [&](Tensors& t) { t[state] = bytes_tensor("{\"sha"); });
  refused("blocksize is not",
          [&](Tensors& t) { t[state] = bytes_tensor("{\"shape\": [64, 32], \"blocksize\": 0}"); });
  refused("we have its nf4", [&](Tensors& t) {
    t[name + ".quant_state.bitsandbytes__fp4"] = t[state];
    t.erase(state);
  });
  // A plain U8 matrix without any state is no weight at all.
  refused("is U8", [&](Tensors& t) {
    for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                             ".quant_state.bitsandbytes__nf4"})
      t.erase(name + part);
    t[name] = at::zeros({64, 32}, at::kByte);
  });
}

}  // namespace
}  // namespace espalier
