// mergekit files: the forms that are read, and hostile or foreign ones.
#include "apps/cli/merge_file.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"

#include "tests/support/tiny_model.h"

namespace espalier::cli {
namespace {

using testing_support::TemporaryFolder;

constexpr const char* kPlain =
    "slices:\n"
    "  - sources:\n"
    "      - model: org/name\n"
    "        layer_range: [0, 12]\n"
    "  - sources:\n"
    "    - {model: org/name, layer_range: [19, 30]}\n"
    "merge_method: passthrough\n"
    "dtype: bfloat16\n";

layer_pruning::MergeFile read(const std::string& text) {
  const TemporaryFolder dir;
  write_file_atomically(dir / "m.yaml", text);
  return read_merge_file(dir / "m.yaml");
}

Error refusal(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown for " << text;
  return Error(ErrorKind::kInternal, "", "");
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(MergeFile, SlicesWithTheirPlaces) {
  const layer_pruning::MergeFile merge = read(kPlain);
  EXPECT_EQ(merge.merge_method, "passthrough");
  ASSERT_EQ(merge.slices.size(), 2u);
  EXPECT_EQ(merge.slices[0][0].model, "org/name");
  EXPECT_EQ(merge.slices[0][0].last, 12);
  EXPECT_EQ(merge.slices[1][0].first, 19);
  EXPECT_TRUE(has(merge.slices[1][0].place, "m.yaml:6:")) << merge.slices[1][0].place;
  EXPECT_EQ(merge.ignored, (std::vector<std::string>{"dtype: bfloat16"}));
}

TEST(MergeFile, WhatOurOwnWriterWritesIsRead) {
  const auto merge = read(layer_pruning::mergekit_yaml({0, 1, 5, 6}, "a \"b\": #c", "float32"));
  EXPECT_EQ(merge.slices[0][0].model, "a \"b\": #c");
  EXPECT_EQ(layer_pruning::kept_layers(merge, 8, "m"), (std::vector<std::int64_t>{0, 1, 5, 6}));
}

TEST(MergeFile, OtherShapesAreRefusedWithTheirPlace) {
  const auto slice = [](const std::string& source) {
    return "merge_method: passthrough\nslices:\n  - sources:\n      - " + source + "\n";
  };
  EXPECT_TRUE(has(refusal("just text").message(), "a mapping is needed"));
  EXPECT_TRUE(has(refusal("").message(), "a mapping is needed"));
  EXPECT_TRUE(has(refusal("slices: 5").message(), "m.yaml:1:9: slices is a list"));
  EXPECT_TRUE(has(refusal("slices:\n  - 5").message(), "m.yaml:2:5: a slice is a mapping"));
  EXPECT_TRUE(has(refusal(slice("{model: a}")).message(), "m.yaml:4:9: a source is a mapping"));
  for (const char* range : {"[0]", "[0, 1, 2]", "5", "{a: 1}"}) {
    EXPECT_TRUE(has(refusal(slice(std::string("{model: a, layer_range: ") + range + "}")).message(),
                    "layer_range is a list of two numbers"))
        << range;
  }
  for (const char* range :
       {"[0, x]", "[0, 1.5]", "[0, 99999999999999999999]", "[0, [1]]", "[~, 3]"}) {
    EXPECT_TRUE(has(refusal(slice(std::string("{model: a, layer_range: ") + range + "}")).message(),
                    "two whole numbers"))
        << range;
  }
  EXPECT_TRUE(
      has(refusal(slice("{model: {path: a}, layer_range: [0, 1]}")).message(), "model is a name"));
  EXPECT_TRUE(has(refusal("models: [a, b]\n").message(), "lists slices"));
  const Error scaled = refusal(slice("{model: a, layer_range: [0, 1], parameters: {scale: 0.5}}"));
  EXPECT_EQ(scaled.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(has(scaled.message(), "parameters change weights"));
  EXPECT_EQ(refusal("parameters: {t: 0.5}\n").kind(), ErrorKind::kUnsupported);
}

TEST(MergeFile, HostileText) {
  EXPECT_TRUE(has(refusal(std::string("slices: \0 x", 11)).message(), "NUL byte"));
  EXPECT_TRUE(has(refusal("slices: [1, 2").message(), "not valid YAML"));
  EXPECT_TRUE(has(refusal("a: *nowhere").message(), "not valid YAML"));
  refusal(std::string(100'000, '['));
  refusal("a: &a [*a, *a]\nslices: *a\n");
  std::string many = "merge_method: passthrough\nslices:\n";
  for (int i = 0; i < 5000; ++i) many += "  - sources: [{model: m, layer_range: [0, 1]}]\n";
  EXPECT_TRUE(has(refusal(many).message(), "5000 slices, at most 4096 are read"));
  EXPECT_EQ(refusal(std::string((1 << 20) + 1, '#')).kind(), ErrorKind::kInput);
  const std::string plain = kPlain;
  for (std::size_t length = 0; length < plain.size(); ++length) {
    try {
      read(plain.substr(0, length));  // whole or refused: nothing else
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace espalier::cli
