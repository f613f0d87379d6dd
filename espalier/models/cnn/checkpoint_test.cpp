// Single files of other programs: wrappers, types, and every kind of tensor that does not fit.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/io/safetensors.h"
#include "espalier/models/cnn/checkpoint_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

TensorMap tensors_of(Cnn net) {
  TensorMap map;
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& t) { map[name] = t; });
  return map;
}

Cnn small() { return Cnn::make(cnn_config("resnet8", 10), 1); }

void write(const std::filesystem::path& path, const TensorMap& tensors) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, t] : tensors)
    plan.push_back({name, to_dtype(t.scalar_type()), t.sizes().vec()});
  SafetensorsWriter writer(path, plan);
  for (const auto& [name, t] : tensors) writer.append(tensor_bytes(t.contiguous()));
  writer.finish();
}

Error refusal(const TensorMap& tensors, const std::string& arch = "resnet8") {
  const TempFolder folder;
  write(folder / "x.safetensors", tensors);
  try {
    Cnn::load(folder / "x.safetensors", arch);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "was accepted";
  return Error(ErrorKind::kInternal, "", "");
}

at::Tensor logits(const Cnn& net) {
  const at::Tensor x =
      at::randn({2, net.config().in_channels, 32, 32}, make_generator(3, "images", 0, 0, at::kCPU));
  return net.forward(x, NormMode::kRunning);
}

TEST(CnnCheckpointTest, WrappersAndTypesAreUndone) {
  const TempFolder folder;
  const Cnn net = small();
  TensorMap wrapped;
  for (const auto& [name, t] : tensors_of(net)) {
    if (name.ends_with(".num_batches_tracked")) continue;  // files before torch 0.4.1
    wrapped["state_dict.module." + name] = t.to(at::kDouble);
  }
  wrapped["optimizer.step"] = at::ones({1});
  write(folder / "x.safetensors", wrapped);
  const Cnn back = Cnn::load(folder / "x.safetensors", "resnet8");
  EXPECT_TRUE(logits(back).equal(logits(net)));

  TensorMap half;
  for (const auto& [name, t] : tensors_of(net))
    half[name] = t.is_floating_point() ? t.to(at::kHalf) : t;
  write(folder / "h.safetensors", half);
  const Cnn rounded = Cnn::load(folder / "h.safetensors", "resnet8");
  EXPECT_EQ(rounded.parameters()[0].tensor.scalar_type(), at::kFloat);
  EXPECT_TRUE(rounded.parameters()[0].tensor.equal(
      net.parameters()[0].tensor.to(at::kHalf).to(at::kFloat)));
}

TEST(CnnCheckpointTest, ClassesAndChannelsComeFromShapes) {
  CnnConfig config = cnn_config("resnet8", 4);
  config.in_channels = 1;
  config.mean = {0.5};
  config.std = {0.25};
  const Cnn net = Cnn::make(config, 1);
  const TempFolder folder;
  write(folder / "x.safetensors", tensors_of(net));
  const Cnn back = Cnn::load(folder / "x.safetensors", "resnet8");
  EXPECT_EQ(back.config(), config);
  EXPECT_TRUE(logits(back).equal(logits(net)));
}

TEST(CnnCheckpointTest, EveryMisfitIsListed) {
  TensorMap t = tensors_of(small());
  t.erase("layer2.0.bn1.bias");
  t.erase("conv1.weight");
  t["extra.weight"] = at::ones({2});
  t["layer1.0.conv1.weight"] = at::zeros({16, 16, 1, 1});
  t["layer3.0.bn2.weight"] = at::ones({64}, at::kLong);
  t["bn1.running_var"] = at::full({16}, std::nan(""), at::kFloat);
  t["linear.bias"] = at::tensor({0., 1. / 0., 0., 0., 0., 0., 0., 0., 0., 0.}).to(at::kFloat);
  const Error error = refusal(t);
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  for (const char* part :
       {"7 problems", "conv1.weight is missing", "layer2.0.bn1.bias is missing",
        "extra.weight is not expected",
        "layer1.0.conv1.weight has shape [16, 16, 1, 1], expected [16, 16, 3, 3]",
        "layer3.0.bn2.weight holds int64, expected floating-point numbers",
        "bn1.running_var holds 16 NaN or infinite values",
        "linear.bias holds 1 NaN or infinite value"})
    EXPECT_NE(error.message().find(part), std::string::npos) << part << "\n" << error.message();
  EXPECT_EQ(error.hint_text(), "expected is a resnet8 with [1, 1, 1] layers per stage");
}

TEST(CnnCheckpointTest, TheOtherLayoutOfVggIsRecognised) {
  TensorMap t = tensors_of(Cnn::make(cnn_config("vgg16_bn", 10), 1));
  t["classifier.0.weight"] = at::ones({2, 2});
  EXPECT_EQ(refusal(t, "vgg16_bn").hint_text(),
            "this is torchvision's layout: pass --arch vgg16_bn_4096");
}

TEST(CnnCheckpointTest, ArchIsAskedForAndChecked) {
  const TempFolder folder;
  write(folder / "x.safetensors", tensors_of(small()));
  small().save(folder / "net");
  const auto message = [](auto load) {
    try {
      load();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.message() + " / " + error.hint_text();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message([&] { Cnn::load(folder / "x.safetensors"); }),
            "a single file does not say which network it holds / pass --arch, for example --arch "
            "resnet56");
  EXPECT_NE(
      message([&] { Cnn::load(folder / "net", "resnet20"); }).find("`resnet20` was given, but"),
      std::string::npos);
  EXPECT_NO_THROW(Cnn::load(folder / "net", "resnet8"));
}

}  // namespace
}  // namespace espalier
