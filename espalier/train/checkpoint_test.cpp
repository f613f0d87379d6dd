// Checkpoints come back bit by bit, replace one another, and say what is wrong with them.
#include "espalier/train/checkpoint.h"

#include <fstream>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

class Checkpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / "espalier_checkpoint_test";
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(Checkpoint, RoundTripKeepsBitsAndOnlyTheNewestStays) {
  const at::Tensor a = at::linspace(-3, 7, 60).view({3, 20}),
                   b = at::tensor({1.5f, -2.5f}).to(at::kBFloat16);
  save_checkpoint(folder_, 4, {{"a", a}, {"b", b}}, R"({"tokens":12})");
  std::ofstream(folder_ / "step-00000007.safetensors.tmp") << "half written by a killed run";
  std::ofstream(folder_ / "notes.txt") << "not ours";
  save_checkpoint(folder_, 9, {{"a", a.t()}, {"b", b}}, R"({"tokens":27})");
  EXPECT_FALSE(fs::exists(folder_ / "step-00000004.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "step-00000007.safetensors.tmp"));
  EXPECT_TRUE(fs::exists(folder_ / "notes.txt"));

  const auto loaded = load_newest_checkpoint(folder_);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, 9);
  EXPECT_EQ(loaded->state_json, R"({"tokens":27})");
  at::Tensor a2 = at::empty({20, 3}), b2 = at::empty({2}, at::kBFloat16);
  restore_tensor(*loaded, "a", a2);
  restore_tensor(*loaded, "b", b2);
  EXPECT_TRUE(at::equal(a2, a.t()));
  EXPECT_TRUE(at::equal(b2, b));
}

TEST_F(Checkpoint, NothingThereIsNotAnError) {
  EXPECT_FALSE(load_newest_checkpoint(folder_));
  fs::create_directories(folder_);
  std::ofstream(folder_ / "step-.safetensors") << "x";
  std::ofstream(folder_ / "step-12x.safetensors") << "x";
  EXPECT_FALSE(load_newest_checkpoint(folder_));
}

TEST_F(Checkpoint, NamesWhatDiffers) {
  save_checkpoint(folder_, 1, {{"a", at::zeros({2, 3})}}, "{}");
  const auto loaded = load_newest_checkpoint(folder_);
  ASSERT_TRUE(loaded);
  const auto message = [&](const std::string& name, const at::Tensor& into) {
    try {
      restore_tensor(*loaded, name, into);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message("b", at::zeros({2})), "checkpoint of step 1: holds no tensor 'b'");
  EXPECT_EQ(message("a", at::zeros({3, 2})),
            "checkpoint of step 1: 'a' is float32 [2, 3], expected float32 [3, 2]");
  EXPECT_EQ(message("a", at::zeros({2, 3}, at::kDouble)),
            "checkpoint of step 1: 'a' is float32 [2, 3], expected float64 [2, 3]");
}

TEST_F(Checkpoint, ABrokenFileIsAnInputError) {
  save_checkpoint(folder_, 3, {{"a", at::zeros({64})}}, "{}");
  fs::resize_file(folder_ / "step-00000003.safetensors", 80);
  EXPECT_THROW(load_newest_checkpoint(folder_), Error);
}

}  // namespace
}  // namespace espalier
