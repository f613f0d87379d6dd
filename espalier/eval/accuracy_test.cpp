// Accuracy on logits that are known: a net whose head is set by hand.
#include "espalier/eval/accuracy.h"

#include <limits>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

/// A ResNet-8 whose logits are its head's bias, whatever the image.
Cnn constant_net(const std::vector<float>& logits) {
  Cnn net = Cnn::make(cnn_config("resnet8", static_cast<std::int64_t>(logits.size())), 1);
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) {
    if (name == "linear.weight") tensor.zero_();
    if (name == "linear.bias") tensor.copy_(at::tensor(logits));
  });
  return net;
}

ImageSet images_of(const std::vector<std::int64_t>& labels, std::int64_t classes) {
  ImageSet set;
  const auto n = static_cast<std::int64_t>(labels.size());
  set.pixels = at::full({n, 3, 32, 32}, 100, at::kByte);
  set.labels = at::tensor(labels, at::kLong);
  for (std::int64_t c = 0; c < classes; ++c) set.classes.push_back(std::string(1, char('a' + c)));
  for (std::int64_t i = 0; i < n; ++i) set.files.push_back("image" + std::to_string(i));
  return set;
}

Accuracy measure(const Cnn& net, const ImageSet& set, std::int64_t batch) {
  return measure_accuracy(net, set, batch, at::kFloat, silent_reporter(), never_stop());
}

TEST(Accuracy, CountsRanksAndLoss) {
  // Order of the classes by logit: 2, then 0 and 5 (equal, the lower first), 1, 3, 4, 6.
  const Cnn net = constant_net({2, 1, 3, 0.5, 0.25, 2, 0});
  const ImageSet set = images_of({2, 2, 0, 5, 4, 6}, 7);
  for (const std::int64_t batch : {1, 4, 6, 100}) {
    const Accuracy found = measure(net, set, batch);
    EXPECT_EQ(found.n, 6);
    EXPECT_DOUBLE_EQ(found.accuracy, 2.0 / 6);
    EXPECT_DOUBLE_EQ(found.top5, 4.0 / 6);
    const at::Tensor logits = at::tensor({2.0, 1.0, 3.0, 0.5, 0.25, 2.0, 0.0}, at::kDouble);
    const double expected =
        at::logsumexp(logits, 0).item<double>() - (3 + 3 + 2 + 2 + 0.25 + 0) / 6.0;
    EXPECT_NEAR(found.loss, expected, 1e-6);
    EXPECT_NEAR(found.accuracy_stderr(), std::sqrt(1.0 / 3 * 2 / 3 / 6), 1e-12);
  }
}

TEST(Accuracy, FewClassesAreAllAmongTheFirstFive) {
  EXPECT_DOUBLE_EQ(measure(constant_net({1, 2, 3}), images_of({0, 1, 2}, 3), 2).top5, 1);
}

TEST(Accuracy, RefusesImagesThatTheNetCannotTake) {
  ImageSet set = images_of({0, 1}, 4);
  set.pixels = set.pixels.narrow(1, 0, 1).contiguous();
  try {
    measure(constant_net({1, 2, 3}), set, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    const std::string text = error.what();
    EXPECT_NE(text.find("1 channels, but the net takes 3"), std::string::npos) << text;
    EXPECT_NE(text.find("4 classes, but the net has 3 outputs"), std::string::npos);
  }
  const Cnn broken = constant_net({1, std::numeric_limits<float>::infinity(), 3});
  try {
    measure(broken, images_of({0, 1}, 3), 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "image0: its logits are not finite");
  }
}

}  // namespace
}  // namespace espalier
