// Recipes: shapes, positions, typing mistakes, hostile files, and the round trip of --print-recipe.
#include "apps/cli/recipe.h"

#include <unistd.h>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"

#include "apps/cli/resolve.h"
#include "apps/cli/sample_options_internal.h"

namespace espalier::cli {
namespace {

class RecipeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("espalier_recipe_test_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& text) {
    write_file_atomically(folder_ / "r.yaml", text);
    return (folder_ / "r.yaml").string();
  }
  void apply(Sample& sample, const std::string& text) {
    apply_recipe(file(text), "prune", {"prune", "finetune", "graph train"}, sample.list, given_);
  }
  // The message with the folder cut out.
  std::string failure(const std::string& text) {
    Sample sample;
    try {
      apply(sample, text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      std::string message = std::string(error.what()) + " | " + error.hint_text();
      for (std::size_t at; (at = message.find(folder_.string() + "/")) != std::string::npos;)
        message.erase(at, folder_.string().size() + 1);
      return message;
    }
    return "accepted";
  }

  std::filesystem::path folder_;
  std::set<std::string> given_;
};

TEST_F(RecipeTest, FlatKeys) {
  Sample sample;
  apply(sample,
        "model: /models/a b\nratio: 5e-1\nforce: yes\nmetrics: [ppl, angular]\nprompt-text: \"a: "
        "b\"\nkeep_last:\nseed: 3\n");
  EXPECT_EQ(sample.options.model, "/models/a b");
  EXPECT_EQ(sample.options.ratio, 0.5);
  EXPECT_TRUE(sample.options.force);
  EXPECT_EQ(sample.options.metrics, (std::vector<std::string>{"ppl", "angular"}));
  EXPECT_EQ(sample.options.text, "a: b");
  EXPECT_FALSE(sample.options.keep);  // null keeps the default
  EXPECT_EQ(sample.common.seed, 3);
  EXPECT_TRUE(given_.contains("ratio"));
  EXPECT_FALSE(given_.contains("keep_last"));
}

TEST_F(RecipeTest, SectionsOfVerbs) {
  Sample sample;
  apply(sample,
        "seed: 4\nprune:\n  rho: 0.5\n  metrics: bi, ppl\nfinetune:\n  lr: 1\ngraph_train: {heads: "
        "2}\n");
  EXPECT_EQ(sample.options.ratio, 0.5);
  EXPECT_EQ(sample.common.seed, 4);
  EXPECT_EQ(sample.options.metrics, (std::vector<std::string>{"bi", "ppl"}));
}

TEST_F(RecipeTest, EmptyFilesChangeNothing) {
  for (const char* text : {"", "# only a comment\n", "---\n", "{}"})
    EXPECT_EQ(failure(text), "accepted") << text;
}

TEST_F(RecipeTest, UnknownKeyHasPositionAndNearest) {
  EXPECT_EQ(failure("model: m\n  \nrato: 0.5\n"),
            "r.yaml:3:1: unknown key \"rato\" | did you mean ratio?");
  EXPECT_EQ(failure("prune:\n  seed: 1\n  rato: 0.5\n"),
            "r.yaml:3:3: unknown key \"rato\" | did you mean ratio?");
  EXPECT_EQ(
      failure("quantum: 1\n"),
      "r.yaml:1:1: unknown key \"quantum\" | see `espalier prune --print-recipe` for all keys");
}

TEST_F(RecipeTest, ValuesAreCheckedWhereTheyStand) {
  EXPECT_EQ(failure("ratio: 1.5\n"),
            "r.yaml:1:8: ratio: 1.5 is outside the range 0 to 0.95 | the nearest allowed value is "
            "ratio: 0.95");
  EXPECT_EQ(failure("method: revrese"),
            "r.yaml:1:9: method: \"revrese\" is not one of: auto, reverse, bi | did you mean "
            "method: reverse?");
  EXPECT_NE(failure("ratio: [0.1, 0.2]\n").find("r.yaml:1:8: ratio takes one value, not a list"),
            std::string::npos);
  EXPECT_NE(failure("ratio: {a: 1}\n").find("ratio takes one value, not a mapping"),
            std::string::npos);
  EXPECT_NE(failure("metrics: [[bi]]\n").find("not a plain value"), std::string::npos);
}

TEST_F(RecipeTest, ProblemsAreReportedTogether) {
  const std::string message = failure("rato: 1\ncount: 0\nseed: x\n");
  EXPECT_NE(message.find("r.yaml: 3 problems:"), std::string::npos) << message;
  EXPECT_NE(message.find("- r.yaml:1:1: unknown key \"rato\" (did you mean ratio?)"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("- r.yaml:2:8: count: 0 is outside the range 1 to 100"), std::string::npos)
      << message;
  EXPECT_NE(message.find("- r.yaml:3:7: seed: \"x\" is not a whole number"), std::string::npos)
      << message;
}

TEST_F(RecipeTest, DuplicatesAreRefused) {
  EXPECT_EQ(failure("ratio: 0.1\nratio: 0.2\n"),
            "r.yaml:2:1: \"ratio\" is given twice, first at 1:1 | keep one of them");
  EXPECT_EQ(failure("ratio: 0.1\nprune: {rho: 0.2}\n"),
            "r.yaml:2:9: \"rho\" is given twice, first at 1:1 | keep one of them");
  EXPECT_EQ(failure("keep_last: 1\nkeep-last: 2\n"),
            "r.yaml:2:1: \"keep-last\" is given twice, first at 1:1 | keep one of them");
  EXPECT_NE(failure("prune: {seed: 1}\nprune: {count: 2}\n").find("\"prune\" is given twice"),
            std::string::npos);
}

TEST_F(RecipeTest, RecipesDoNotChooseRecipes) {
  EXPECT_EQ(failure("recipe: other.yaml\n"),
            "r.yaml:1:1: \"recipe\" cannot stand in a recipe | give --recipe on the command line");
  EXPECT_NE(failure("set: [a=b]\n").find("cannot stand in a recipe"), std::string::npos);
}

TEST_F(RecipeTest, HostileFiles) {
  EXPECT_NE(failure("a: [1, 2\n").find("not valid YAML"), std::string::npos);
  EXPECT_NE(failure("- a\n- b\n").find("a recipe is a mapping"), std::string::npos);
  EXPECT_NE(failure("just text\n").find("a recipe is a mapping"), std::string::npos);
  EXPECT_NE(failure("seed: 1\n---\nseed: 2\n").find("holds 2 YAML documents"), std::string::npos);
  EXPECT_NE(failure("? [a, b]\n: 1\n").find("a key must be a word"), std::string::npos);
  EXPECT_NE(failure(std::string("seed: \0 1\n", 10)).find("NUL byte"), std::string::npos);
  EXPECT_NE(failure("seed: *nothing\n").find("not valid YAML"), std::string::npos);
  EXPECT_NE(failure(std::string(200000, '[')).find("not valid YAML"), std::string::npos);
  EXPECT_NE(failure("a: " + std::string(200000, '{')).find("not valid YAML"), std::string::npos);
  std::string nested;
  for (int i = 0; i < 600; ++i) nested += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  EXPECT_NE(failure(nested), "accepted");
}

TEST_F(RecipeTest, AliasBombsCostNothing) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string last = std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) text += "*a" + last + ", ";
    text += "]\n";
  }
  EXPECT_NE(failure(text + "metrics: *a11\n").find("not a plain value"), std::string::npos);
}

TEST_F(RecipeTest, LargeFilesAreRefusedBeforeParsing) {
  Sample sample;
  try {
    apply(sample, "#" + std::string(2u << 20, 'x'));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
  }
  EXPECT_THROW(apply_recipe(folder_ / "absent.yaml", "prune", {}, sample.list, given_), Error);
}

TEST_F(RecipeTest, PrintedRecipesReadBackEqual) {
  Sample sample;
  sample.options.model = "-odd: name #1 \"quoted\" \\ \n\t\x02 é";
  sample.options.text = "null";
  sample.options.out = "~";
  sample.options.ratio = 1.0 / 3;
  sample.options.keep = 4;
  sample.options.metrics = {};
  sample.options.stop = {"a,b", "\\", "- x", "true", "1e5", "", "'", "}"};
  sample.options.stop.erase(sample.options.stop.begin() + 5);  // an empty element has no spelling
  sample.options.bos = false;
  sample.common.seed = 99;
  const std::string printed = recipe_text("prune", sample.list);
  Sample back;
  apply(back, printed);
  EXPECT_EQ(back.options.model, sample.options.model);
  EXPECT_EQ(back.options.text, "null");
  EXPECT_EQ(back.options.out, "~");
  EXPECT_EQ(back.options.ratio, sample.options.ratio);
  EXPECT_EQ(back.options.keep, 4);
  EXPECT_TRUE(back.options.metrics.empty());
  EXPECT_EQ(back.options.stop, sample.options.stop);
  EXPECT_FALSE(back.options.bos);
  EXPECT_EQ(back.common.seed, 99);
  EXPECT_EQ(recipe_text("prune", back.list), printed);
  Sample untouched, again;
  apply(again, recipe_text("prune", untouched.list));
  EXPECT_EQ(recipe_text("prune", again.list), recipe_text("prune", untouched.list));
}

// ---- precedence
// ----------------------------------------------------------------------------------------------------

TEST_F(RecipeTest, FlagBeatsSetBeatsRecipeBeatsDefault) {
  Sample sample;
  const std::string recipe = file("ratio: 0.1\ncount: 11\nmethod: bi\n");
  const ParsedArguments parsed = parse_arguments(
      "prune", sample.list,
      {"--ratio", "0.3", "--set", "ratio=0.2", "--set", "count=12", "--recipe", recipe, "m"});
  const std::set<std::string> given = resolve_options("prune", {"prune"}, sample.list, parsed);
  EXPECT_EQ(sample.options.ratio, 0.3);
  EXPECT_EQ(sample.options.count, 12);
  EXPECT_EQ(sample.options.method, "bi");
  EXPECT_EQ(sample.options.model, "m");
  EXPECT_EQ(sample.options.metrics, (std::vector<std::string>{"bi"}));
  EXPECT_EQ(given, (std::set<std::string>{"ratio", "count", "method", "model", "recipe"}));
}

TEST_F(RecipeTest, RepeatedFlags) {
  Sample sample;
  const ParsedArguments parsed =
      parse_arguments("prune", sample.list,
                      {"--count", "3", "--count", "4", "--metrics", "ppl", "--metrics",
                       "bi,angular", "--set", "prompt_text=a=b,c"});
  resolve_options("prune", {}, sample.list, parsed);
  EXPECT_EQ(sample.options.count, 4);
  EXPECT_EQ(sample.options.metrics, (std::vector<std::string>{"ppl", "bi", "angular"}));
  EXPECT_EQ(sample.options.text, "a=b,c");
}

std::string set_failure(const std::string& assignment) {
  Sample sample;
  try {
    resolve_options("prune", {}, sample.list,
                    parse_arguments("prune", sample.list, {"--set", assignment}));
  } catch (const Error& error) {
    return error.to_string();
  }
  return "accepted";
}

TEST(Resolve, SetNamesKeyAndPlace) {
  EXPECT_EQ(set_failure("rato=1"),
            "error: --set: unknown key \"rato\"\n  hint:  did you mean --set ratio=1?");
  EXPECT_EQ(set_failure("ratio"),
            "error: --set: \"ratio\" is not of the form key=value\n  hint:  write --set key=value");
  EXPECT_EQ(set_failure("ratio=7"),
            "error: --ratio: 7 is outside the range 0 to 0.95\n  while: applying --set ratio=7\n  "
            "hint:  the nearest allowed value is --ratio=0.95");
  EXPECT_NE(set_failure("recipe=x").find("unknown key"), std::string::npos);
}

TEST(Resolve, WrongValuesAreReportedTogether) {
  Sample sample;
  try {
    resolve_options(
        "prune", {}, sample.list,
        parse_arguments("prune", sample.list, {"--ratio", "2", "--count=x", "--set", "rato=1"}));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "espalier prune: 3 problems:\n  - --set: unknown key \"rato\" (did you mean --set "
              "ratio=1?)\n"
              "  - --count: \"x\" is not a whole number (write digits only, such as --count=4)\n"
              "  - --ratio: 2 is outside the range 0 to 0.95 (the nearest allowed value is "
              "--ratio=0.95)");
  }
}

TEST(Resolve, RequiredOptions) {
  Sample sample;
  try {
    check_required("prune", sample.list);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "espalier prune: 2 problems:\n  - MODEL is missing\n  - --out is missing");
  }
  sample.options.model = "m";
  try {
    check_required("prune", sample.list);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "--out: is missing: where to");
    EXPECT_EQ(error.hint_text(), "the form is: espalier prune MODEL --out PATH [flags]");
  }
  sample.options.out = "o";
  check_required("prune", sample.list);
}

}  // namespace
}  // namespace espalier::cli
