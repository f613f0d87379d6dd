// Merge files that are removals, and those that are something else.
#include "espalier/methods/layer_pruning/mergekit.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

using testing_support::TemporaryFolder;
using Layers = std::vector<std::int64_t>;

MergeFile slices_of(const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges) {
  MergeFile merge;
  merge.merge_method = "passthrough";
  std::int64_t line = 4;
  for (const auto& [first, last] : ranges)
    merge.slices.push_back({{"m", first, last, "f.yaml:" + std::to_string(line++) + ":9"}});
  return merge;
}

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

Error refusal(const MergeFile& merge) {
  return error_of([&] { kept_layers(merge, 30, "f.yaml"); });
}

TEST(Mergekit, RangesAreHalfOpen) {
  EXPECT_EQ(kept_layers(slices_of({{0, 3}, {5, 6}, {28, 30}}), 30, "f"),
            (Layers{0, 1, 2, 5, 28, 29}));
  EXPECT_EQ(kept_layers(slices_of({{0, 2}, {2, 4}}), 30, "f"), (Layers{0, 1, 2, 3}));
}

TEST(Mergekit, WhatIsNoRemovalIsRefusedByName) {
  MergeFile merge = slices_of({{0, 3}});
  merge.merge_method = "slerp";
  EXPECT_EQ(refusal(merge).kind(), ErrorKind::kUnsupported);
  EXPECT_EQ(refusal(merge).message(),
            "merge_method is slerp, only passthrough takes layers out unchanged");
  merge = slices_of({{0, 3}, {3, 6}});
  merge.slices[1][0].model = "other";
  EXPECT_EQ(refusal(merge).message(), "the slices come from 2 models (m, other), expected one");
  merge = slices_of({{0, 3}});
  merge.slices[0].push_back(merge.slices[0][0]);
  EXPECT_EQ(refusal(merge).message(), "f.yaml:4:9: a slice mixes 2 sources, expected one");
  const Error repeated = refusal(slices_of({{0, 24}, {8, 30}}));
  EXPECT_EQ(repeated.kind(), ErrorKind::kUnsupported);
  EXPECT_EQ(repeated.message(),
            "f.yaml:5:9: layers 8-23 are repeated, which makes a deeper model, not a smaller one");
  EXPECT_EQ(refusal(slices_of({{10, 20}, {0, 5}})).message(),
            "f.yaml:5:9: layer 0 comes after layer 19; pruning keeps the order");
  merge = slices_of({{0, 3}});
  merge.slices[0].clear();
  EXPECT_EQ(refusal(merge).kind(), ErrorKind::kUnsupported);
}

TEST(Mergekit, RangesOutsideTheModel) {
  for (const auto& [first, last] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 31}, {-1, 4}, {5, 5}, {6, 2}, {0, std::int64_t{1} << 62}}) {
    const Error error = refusal(slices_of({{first, last}}));
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.message().find("of the model's 30 layers"), std::string::npos)
        << error.message();
  }
  EXPECT_EQ(refusal(slices_of({})).message(), "holds no slices");
}

TEST(Mergekit, WritingAndReadingBackGivesTheSameLayers) {
  EXPECT_EQ(mergekit_yaml({0, 1, 2, 19, 25, 26}, "org/a \"model\"", "bfloat16"),
            "slices:\n"
            "  - sources:\n      - model: \"org/a \\\"model\\\"\"\n        layer_range: [0, 3]\n"
            "  - sources:\n      - model: \"org/a \\\"model\\\"\"\n        layer_range: [19, 20]\n"
            "  - sources:\n      - model: \"org/a \\\"model\\\"\"\n        layer_range: [25, 27]\n"
            "merge_method: passthrough\ndtype: bfloat16\n");
}

TEST(Mergekit, OurOwnRecords) {
  TemporaryFolder dir;
  write_file_atomically(dir / "r.json", R"({"layers_before": 6, "kept": [0, 1, 5]})");
  EXPECT_EQ(kept_of_record(dir / "r.json", 6), (Layers{0, 1, 5}));
  EXPECT_EQ(error_of([&] { kept_of_record(dir / "r.json", 8); }).message(),
            "was made for a model of 6 layers, but this one has 8");
  write_file_atomically(dir / "bad.json", R"({"layers_before": 6, "kept": [0, "x"]})");
  EXPECT_EQ(error_of([&] { kept_of_record(dir / "bad.json", 6); }).message(),
            "kept holds \"x\", expected layers");
  write_file_atomically(dir / "none.json", "[]");
  EXPECT_EQ(error_of([&] { kept_of_record(dir / "none.json", 6); }).kind(), ErrorKind::kInput);
}

}  // namespace
}  // namespace espalier::layer_pruning
