// Result documents as report sections.
#include "espalier/report/saved_results.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

std::string evaluation(const std::string& model, double perplexity) {
  return "{\"schema\": \"espalier.eval/1\", \"model\": \"" + model +
         "\", \"results\": {\"ppl\": {\"perplexity\": " + std::to_string(perplexity) +
         ", \"perplexity_stderr\": 0.5, \"tokens\": 2032, \"n\": 16}}, "
         "\"config\": {\"seq_len\": 128, \"add_bos\": false, \"dtype\": \"float32\"}}";
}

TEST(SavedResults, ReadsScoresAndSettings) {
  const TempFolder folder;
  const SavedResult result =
      load_saved_result(folder.write("a.json", evaluation("out/pruned/", 129.25)));
  EXPECT_EQ(result.verb, "eval");
  EXPECT_EQ(result.name, "pruned");
  EXPECT_EQ(result.settings, "seq_len 128, no BOS, float32");
  ASSERT_EQ(result.scores.size(), 1u);  // tokens and n are no scores
  EXPECT_EQ(result.scores[0].metric, "perplexity");
  EXPECT_DOUBLE_EQ(result.scores[0].value, 129.25);
  EXPECT_DOUBLE_EQ(result.scores[0].standard_error, 0.5);
  EXPECT_EQ(result.scores[0].count, 16);
}

TEST(SavedResults, ModelsStandSideBySide) {
  const TempFolder folder;
  std::vector<SavedResult> results;
  results.push_back(load_saved_result(folder.write("a.json", evaluation("out/dense", 51.7))));
  results.push_back(load_saved_result(folder.write("b.json", evaluation("out/pruned", 129.0))));
  results.push_back(load_saved_result(folder.write(
      "c.json",
      R"({"schema": "espalier.generate/1", "model": "out/dense", "prompt": "a <b>", "text": " tree & leaf"})")));
  HtmlReport report("test");
  add_saved_results(results, report);
  const std::string html = report.html();
  for (const char* expected : {"51.7", "129", "dense", "pruned", "a &lt;b&gt;", "tree &amp; leaf",
                               "What the models write"})
    EXPECT_NE(html.find(expected), std::string::npos) << expected;
}

TEST(SavedResults, OtherVerbsAddNothing) {
  const TempFolder folder;
  HtmlReport report("test"), empty("test");
  add_saved_results(
      {load_saved_result(folder.write("a.json", R"({"schema": "espalier.inspect/1"})"))}, report);
  EXPECT_EQ(report.html(), empty.html());
}

TEST(SavedResults, RefusesWhatIsNoResult) {
  const TempFolder folder;
  try {
    load_saved_result(folder.write("a.json", R"({"model_type": "llama"})"));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.message().find("not a result of espalier"), std::string::npos);
    EXPECT_NE(error.hint_text().find("--save-json"), std::string::npos);
  }
  EXPECT_THROW(load_saved_result(folder.write("b.json", "[1, 2")), Error);
  EXPECT_THROW(load_saved_result(folder.write("c.json", "[1, 2]")), Error);
}

}  // namespace
}  // namespace espalier
