// Options: parsing and printing of each type, constraints, look-up, typing mistakes, JSON schema.
#include "espalier/options/options.h"

#include <clocale>
#include <limits>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"

namespace espalier {
namespace {

struct SampleOptions {
  bool verbose = false;
  std::int64_t count = 7;
  double ratio = 0.25, lr = 1e-5;
  std::string method = "auto";
  std::string file;
  std::vector<std::string> metrics{"bi", "ppl"};
  std::vector<std::string> stop;
  std::optional<std::int64_t> keep;
  std::optional<bool> chat;

  template <class V>
  void visit(V&& option) {
    option.group("First");
    option("verbose", verbose, "say more");
    option("count", count, "how many", in_range(0, 100));
    option("ratio", ratio, "share", in_range(0.0, 0.95) | alias("rho"));
    option("lr", lr, "learning rate", at_least(0));
    option.group("Second");
    option("method", method, "score", one_of({"auto", "reverse", "bi"}));
    option("input_file", file, "input", positional("FILE") | required());
    option("metrics", metrics, "scores", one_of({"bi", "ppl", "angular"}));
    option("stop", stop, "stop strings");
    option("keep", keep, "layers to keep", at_least(1));
    option("chat", chat, "use the template");
  }
};

class OptionsTest : public ::testing::Test {
 protected:
  void set(std::string_view name, std::string_view value) { find_option(list_, name)->set(value); }
  Error failure(std::string_view name, std::string_view value) {
    try {
      set(name, value);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << name << "=" << value << " was accepted";
    return Error(ErrorKind::kInternal, "", "");
  }
  SampleOptions sample_;
  OptionList list_ = describe(sample_);
};

TEST_F(OptionsTest, DescribesEveryField) {
  ASSERT_EQ(list_.size(), 10u);
  EXPECT_EQ(list_[2].name, "ratio");
  EXPECT_EQ(list_[2].group, "First");
  EXPECT_EQ(list_[2].type, OptionType::kNumber);
  EXPECT_EQ(list_[2].default_text, "0.25");
  EXPECT_EQ(list_[3].default_text, "1e-5");
  EXPECT_EQ(list_[5].flag(), "--input-file");
  EXPECT_TRUE(list_[5].traits.required);
  EXPECT_TRUE(list_[5].traits.positional);
  EXPECT_EQ(list_[5].traits.placeholder, "FILE");
  EXPECT_EQ(list_[6].default_text, "bi,ppl");
  EXPECT_EQ(list_[8].default_text, "");
  EXPECT_EQ(list_[8].type, OptionType::kInteger);
}

TEST_F(OptionsTest, SetsFields) {
  set("verbose", "On");
  set("count", "42");
  set("rho", "5e-1");
  set("lr", "1e-5");
  set("method", "bi");
  set("metrics", "angular, bi");
  set("keep", "+3");
  set("chat", "no");
  EXPECT_TRUE(sample_.verbose);
  EXPECT_EQ(sample_.count, 42);
  EXPECT_EQ(sample_.ratio, 0.5);
  EXPECT_EQ(sample_.lr, 1e-5);
  EXPECT_EQ(sample_.method, "bi");
  EXPECT_EQ(sample_.metrics, (std::vector<std::string>{"angular", "bi"}));
  EXPECT_EQ(sample_.keep, 3);
  EXPECT_EQ(sample_.chat, false);
  set("metrics", "");
  EXPECT_TRUE(sample_.metrics.empty());
}

TEST_F(OptionsTest, BooleansHaveEightSpellings) {
  for (const char* yes : {"true", "on", "yes", "1", "TRUE"}) {
    set("verbose", yes);
    EXPECT_TRUE(sample_.verbose);
    set("verbose", "off");
  }
  for (const char* no : {"false", "off", "no", "0"}) {
    set("verbose", "on");
    set("verbose", no);
    EXPECT_FALSE(sample_.verbose);
  }
  const Error error = failure("verbose", "maybe");
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_STREQ(error.what(), "--verbose: \"maybe\" is neither on nor off");
  EXPECT_EQ(error.hint_text(), "write --verbose, --verbose=off, or --no-verbose");
}

TEST_F(OptionsTest, NumbersRejectGarbage) {
  for (const char* bad : {"", " 3", "3 ", "3x", "1e3", "0x10", "3.0", "--3", "+-3", "++3", "1,000",
                          "\xC2\xA0"
                          "3"}) {
    const Error error = failure("count", bad);
    EXPECT_NE(error.message().find("is not a whole number"), std::string::npos) << bad;
    EXPECT_FALSE(error.hint_text().empty());
  }
  EXPECT_STREQ(failure("count", "9223372036854775808").what(),
               "--count: \"9223372036854775808\" does not fit into 64 bits");
  for (const char* bad : {"", "nan", "inf", "-inf", "1e", "0,5", "1e-5x", "abc", " .5"})
    EXPECT_NE(failure("lr", bad).message().find("is not a number"), std::string::npos) << bad;
  EXPECT_NE(failure("lr", "1e999").message().find("too large or too small"), std::string::npos);
  EXPECT_EQ(sample_.count, 7);  // a refused value changes nothing
  EXPECT_EQ(sample_.lr, 1e-5);
}

TEST_F(OptionsTest, RangesNameBothBounds) {
  const Error error = failure("ratio", "1.5");
  EXPECT_STREQ(error.what(), "--ratio: 1.5 is outside the range 0 to 0.95");
  EXPECT_EQ(error.hint_text(), "the nearest allowed value is --ratio=0.95");
  EXPECT_EQ(failure("ratio", "-0.1").hint_text(), "the nearest allowed value is --ratio=0");
  EXPECT_STREQ(failure("keep", "0").what(), "--keep: 0 is too small: at least 1");
  set("ratio", "0.95");  // both ends are allowed
  set("ratio", "0");
}

TEST_F(OptionsTest, ChoicesSuggestTheNearest) {
  const Error error = failure("method", "revrese");
  EXPECT_STREQ(error.what(), "--method: \"revrese\" is not one of: auto, reverse, bi");
  EXPECT_EQ(error.hint_text(), "did you mean --method=reverse?");
  EXPECT_EQ(failure("method", "xyzzy").hint_text(), "choose one, such as --method=auto");
  EXPECT_EQ(failure("metrics", "bi,pppl").hint_text(), "did you mean --metrics=ppl?");
}

TEST_F(OptionsTest, ListsSplitAtCommas) {
  set("stop", R"(a\,b,c d,\\,x\y)");
  EXPECT_EQ(sample_.stop, (std::vector<std::string>{"a,b", "c d", "\\", "x\\y"}));
  const std::string printed = find_option(list_, "stop")->get();
  sample_.stop.clear();
  set("stop", printed);
  EXPECT_EQ(sample_.stop, (std::vector<std::string>{"a,b", "c d", "\\", "x\\y"}));
  EXPECT_NE(failure("stop", "a,,b").message().find("empty element"), std::string::npos);
  EXPECT_NE(failure("stop", ",").message().find("empty element"), std::string::npos);
}

TEST_F(OptionsTest, NulBytesAreRefused) {
  EXPECT_NE(failure("input_file", std::string_view("a\0b", 3)).message().find("NUL"),
            std::string::npos);
  EXPECT_NE(failure("stop", std::string_view("a\0b", 3)).message().find("NUL"), std::string::npos);
}

TEST_F(OptionsTest, PrintingRoundTripsExactly) {
  for (const double value :
       {0.1, 1.0 / 3, 1e-5, 1e300, 5e-324, 1e16, -2.5, 0.0, 123456789.0, 1e-10, 2e100}) {
    sample_.lr = value;
    const std::string text = detail::print_value(value);
    double back = 0;
    detail::parse_value("--lr", text, {}, back);
    EXPECT_EQ(back, value) << text;
  }
  EXPECT_EQ(detail::print_value(1e-5), "1e-5");
  EXPECT_EQ(detail::print_value(1e16), "1e16");
  EXPECT_EQ(detail::print_value(1e-10), "1e-10");
  EXPECT_EQ(detail::print_value(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
}

TEST(OptionsLocale, NumbersIgnoreTheLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE"}) std::setlocale(LC_ALL, name);
  double value = 0;
  detail::parse_value("--lr", "0.5", {}, value);
  EXPECT_EQ(value, 0.5);
  EXPECT_EQ(detail::print_value(0.5), "0.5");
  std::setlocale(LC_ALL, before.c_str());
}

TEST_F(OptionsTest, FindsByNameAliasAndSpelling) {
  EXPECT_EQ(find_option(list_, "input-file"), find_option(list_, "input_file"));
  EXPECT_EQ(find_option(list_, "rho")->name, "ratio");
  EXPECT_EQ(find_option(list_, "nothing"), nullptr);
}

TEST(Nearest, SuggestsOnlyTypingMistakes) {
  const std::vector<std::string> known{"prune", "redundancy", "finetune", "merge-adapter",
                                       "calibration"};
  EXPECT_EQ(nearest("prnue", known), "prune");
  EXPECT_EQ(nearest("Prune", known), "prune");
  EXPECT_EQ(nearest("redundnacy", known), "redundancy");
  EXPECT_EQ(nearest("merge_adaptor", known), "merge-adapter");
  EXPECT_EQ(nearest("calib", known), "calibration");
  EXPECT_EQ(nearest("serve", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest(std::string(100000, 'x'), known), "");
  EXPECT_EQ(nearest("prune", {}), "");
}

TEST_F(OptionsTest, SchemaIsValidAndTyped) {
  const Json schema = parse_json(json_schema("espalier sample", list_), "schema");
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema["additionalProperties"], false);
  const Json& p = schema["properties"];
  EXPECT_EQ(p["count"]["type"], "integer");
  EXPECT_EQ(p["count"]["default"], 7);
  EXPECT_EQ(p["count"]["maximum"], 100);
  EXPECT_EQ(p["ratio"]["maximum"], 0.95);
  EXPECT_EQ(p["rho"]["$ref"], "#/properties/ratio");
  EXPECT_EQ(p["method"]["enum"].size(), 3u);
  EXPECT_EQ(p["metrics"]["type"], "array");
  EXPECT_EQ(p["metrics"]["items"]["enum"][2], "angular");
  EXPECT_EQ(p["metrics"]["default"], Json({"bi", "ppl"}));
  EXPECT_EQ(p["verbose"]["default"], false);
  EXPECT_FALSE(p["keep"].contains("default"));
}

TEST(Schema, BoundsOfAnySizeArePrinted) {
  struct Wide {
    double x = 1;
    void visit(detail::Describer& option) { option("x", x, "wide", in_range(-1e300, 0.5)); }
  } wide;
  const Json schema = parse_json(json_schema("t", describe(wide)), "schema");
  EXPECT_EQ(schema["properties"]["x"]["minimum"], -1e300);
  EXPECT_EQ(schema["properties"]["x"]["maximum"], 0.5);
}

TEST(OptionTraitsTest, CombineKeepsBothSides) {
  const OptionTraits traits =
      in_range(0, 1) | alias("a") | alias("b") | placeholder("X") | required();
  EXPECT_EQ(traits.maximum, 1);
  EXPECT_EQ(traits.aliases, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(traits.placeholder, "X");
  EXPECT_TRUE(traits.required);
  EXPECT_FALSE(traits.positional);
}

}  // namespace
}  // namespace espalier
