// Layer sets as users write them, and every refusal of a bad plan.
#include "espalier/surgery/layer_plan.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

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

TEST(LayerSet, BothWaysToWriteARange) {
  EXPECT_EQ(parse_layer_set("12-18,25", 30, "--remove"), (Layers{12, 13, 14, 15, 16, 17, 18, 25}));
  EXPECT_EQ(parse_layer_set("12:19", 30, "--remove"), (Layers{12, 13, 14, 15, 16, 17, 18}));
  EXPECT_EQ(parse_layer_set(" 25, 3 - 4 ", 30, "--remove"), (Layers{3, 4, 25}));
  EXPECT_EQ(parse_layer_set("7-7", 8, "--remove"), (Layers{7}));
  EXPECT_EQ(parse_layer_list("25,3", 30, "--keep"), (Layers{25, 3}));
}

TEST(LayerSet, MistakesNameThePartAndTheRange) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {"30", "`30` is out of range; the model has 30 layers, 0-29"},
      {"28-31", "`28-31` is out of range"},
      {"-3", "`-3` is out of range"},
      {"18-12", "`18-12` is reversed"},
      {"12:12", "`12:12` is empty"},
      {"5,5", "layer 5 is named more than once"},
      {"3-6,5-8", "layer 5 is named more than once"},
      {"", "names no layer"},
      {"3,,4", "empty part"},
      {"3,", "empty part"},
      {"abc", "`abc` is not a layer"},
      {"3-", "`3-` is not a layer"},
      {"1-2-3", "`1-2-3` is not a layer"},
      {"99999999999999999999", "is not a layer"},
      {"0-9223372036854775807", "is out of range"},
  };
  for (const auto& test : cases) {
    const Error error = error_of([&] { parse_layer_set(test.text, 30, "--remove"); });
    EXPECT_EQ(error.kind(), ErrorKind::kUsage) << test.text;
    EXPECT_EQ(error.subject(), "--remove");
    EXPECT_TRUE(has(error.message(), test.message)) << test.text << ": " << error.message();
    EXPECT_TRUE(has(error.hint_text(), "--remove 12-18,25"));
  }
  // All problems at once.
  const Error both = error_of([] { parse_layer_set("40,x,2-1", 30, "--keep"); });
  EXPECT_TRUE(has(both.message(), "3 problems:")) << both.message();
}

TEST(LayerSet, TextIsTheInverse) {
  for (const char* text : {"12-18,25", "0", "0-29", "1,3,5", "0-1,3-4"}) {
    EXPECT_EQ(layer_set_text(parse_layer_set(text, 30, "--remove")), text);
  }
  EXPECT_EQ(layer_set_text({}), "");
  EXPECT_EQ(complement({1, 2}, 5), (Layers{0, 3, 4}));
  EXPECT_EQ(complement({}, 2), (Layers{0, 1}));
}

TEST(CheckKept, NamesEveryProblem) {
  EXPECT_NO_THROW(check_kept({0, 1, 29}, 30));
  EXPECT_TRUE(has(error_of([] { check_kept({}, 30); }).message(), "the list is empty"));
  EXPECT_TRUE(has(error_of([] {
                    check_kept({3, 2}, 30);
                  }).message(),
                  "layer 2 comes after layer 3"));
  EXPECT_TRUE(has(error_of([] {
                    check_kept({3, 3}, 30);
                  }).message(),
                  "layer 3 is named more than once"));
  const Error range = error_of([] { check_kept({1, 30}, 30); });
  EXPECT_TRUE(has(range.message(), "layer 30 is out of range"));
  EXPECT_TRUE(has(range.message(), "given 1,30"));
  EXPECT_TRUE(has(range.hint_text(), "0-29"));
}

TEST(CheckRemoval, NothingOrEverything) {
  const Error none = error_of([] { check_removal({}, 30, true); });
  EXPECT_TRUE(has(none.message(), "between 1 and 29")) << none.message();
  EXPECT_TRUE(has(none.hint_text(), "--count"));
  const Error all = error_of([] { check_removal(complement({}, 4), 4, true); });
  EXPECT_EQ(all.kind(), ErrorKind::kUsage);
  EXPECT_TRUE(has(all.message(), "4 were given, but the model has 4")) << all.message();
  EXPECT_TRUE(has(all.message(), "remove 1 to 3"));
}

TEST(CheckRemoval, TheFirstTwoLayersNeedForce) {
  EXPECT_NO_THROW(check_removal({2, 29}, 30, false));
  EXPECT_NO_THROW(check_removal({0, 1}, 30, true));
  for (const std::int64_t layer : {0, 1}) {
    const Error error = error_of([&] { check_removal({layer, 14}, 30, false); });
    EXPECT_TRUE(has(error.message(), "perplexity")) << error.message();
    EXPECT_TRUE(has(error.hint_text(), "--force"));
  }
}

}  // namespace
}  // namespace espalier
