// Tokenising: every form of a flag, values that look like something else, and our messages.
#include "apps/cli/parse.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"

#include "apps/cli/sample_options_internal.h"

namespace espalier::cli {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Pairs parse(const std::vector<std::string>& words) {
  const Sample sample;
  Pairs pairs;
  for (const auto& [option, text] : parse_arguments("prune", sample.list, words).values)
    pairs.emplace_back(option->name, text);
  return pairs;
}

std::string failure(const std::vector<std::string>& words) {
  try {
    parse(words);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return std::string(error.what()) + " | " + error.hint_text();
  }
  return "accepted";
}

TEST(Parse, FormsOfAFlag) {
  EXPECT_EQ(parse({"m", "--ratio", "0.5"}), (Pairs{{"ratio", "0.5"}, {"model", "m"}}));
  EXPECT_EQ(parse({"--ratio=0.5", "m"}), (Pairs{{"ratio", "0.5"}, {"model", "m"}}));
  EXPECT_EQ(parse({"--rho", "0.5"}), (Pairs{{"ratio", "0.5"}}));
  EXPECT_EQ(parse({"--keep-last=3"}), parse({"--keep_last", "3"}));
  EXPECT_EQ(parse({"--model", "m"}), (Pairs{{"model", "m"}}));
  EXPECT_EQ(parse({}), Pairs{});
}

TEST(Parse, Booleans) {
  EXPECT_EQ(parse({"--force"}), (Pairs{{"force", "true"}}));
  EXPECT_EQ(parse({"--no-force"}), (Pairs{{"force", "false"}}));
  EXPECT_EQ(parse({"--no_add_bos"}), (Pairs{{"add_bos", "false"}}));
  EXPECT_EQ(parse({"--json=on", "--force=no", "--no-force=off"}),
            (Pairs{{"json", "true"}, {"force", "false"}, {"force", "true"}}));
  EXPECT_EQ(parse({"--force", "m"}),
            (Pairs{{"force", "true"}, {"model", "m"}}));  // the word is no value of the switch
  EXPECT_EQ(failure({"--json=maybe"}),
            "--json: \"maybe\" is neither on nor off | write --json, --json=off, or --no-json");
}

TEST(Parse, ValuesArriveAsTheyStand) {
  for (const char* value : {"[a, b]", "", "a=b", "-5", "-1e-5", "'q'", "{}", "on", "%%", "a,b",
                            "\x01x", "été 🙂", "--x"}) {
    EXPECT_EQ(parse({std::string("--prompt-text=") + value}), (Pairs{{"prompt_text", value}}))
        << value;
  }
  for (const char* value : {"[a, b]", "", "-5", "-hello", "{}", "-", "two words", "/windows"})
    EXPECT_EQ(parse({"--prompt-text", value}), (Pairs{{"prompt_text", value}})) << value;
}

TEST(Parse, RepeatedFlagsKeepTheirOrder) {
  EXPECT_EQ(parse({"--count", "1", "--ratio", "0.1", "--count", "2"}),
            (Pairs{{"count", "1"}, {"ratio", "0.1"}, {"count", "2"}}));
}

TEST(Parse, EverythingAfterTwoDashesIsBare) {
  EXPECT_EQ(parse({"--", "--ratio"}), (Pairs{{"model", "--ratio"}}));
  EXPECT_EQ(parse({"--count", "3", "--", "-m"}), (Pairs{{"count", "3"}, {"model", "-m"}}));
}

TEST(Parse, MetaFlags) {
  const Sample sample;
  EXPECT_TRUE(parse_arguments("prune", sample.list, {"--nonsense", "--help"}).help);
  EXPECT_TRUE(parse_arguments("prune", sample.list, {"-h"}).help);
  EXPECT_TRUE(parse_arguments("prune", sample.list, {"--json-schema"}).json_schema);
  EXPECT_EQ(parse_arguments("prune", sample.list, {"--explain", "ratio"}).explain, "ratio");
  EXPECT_FALSE(parse_arguments("prune", sample.list, {"--", "--help"}).help);
}

TEST(Parse, UnknownFlagsNameTheNearest) {
  EXPECT_EQ(failure({"m", "--rato", "0.5"}),
            "--rato: unknown flag of `espalier prune` | did you mean --ratio?");
  EXPECT_EQ(failure({"--rato=0.5"}),
            "--rato: unknown flag of `espalier prune` | did you mean --ratio?");
  EXPECT_EQ(failure({"--no-focre"}),
            "--no-focre: unknown flag of `espalier prune` | did you mean --no-force?");
  EXPECT_EQ(
      failure({"--quantum"}),
      "--quantum: unknown flag of `espalier prune` | see `espalier prune --help` for all flags");
  EXPECT_EQ(failure({"-x"}),
            "-x: unknown flag of `espalier prune` | see `espalier prune --help` for all flags");
  EXPECT_EQ(failure({"--no-ratio"}).substr(0, 42), "--no-ratio: unknown flag of `espalier prun");
}

TEST(Parse, SeveralUnknownFlagsAreReportedTogether) {
  EXPECT_EQ(failure({"--rato", "0.5", "--metrcs=bi"}),
            "espalier prune: 2 problems:\n  - --rato: unknown flag of `espalier prune` (did you "
            "mean --ratio?)\n"
            "  - --metrcs: unknown flag of `espalier prune` (did you mean --metrics?) | see "
            "`espalier prune --help`");
}

// Whatever is typed gives values or our error, never one of CLI11's.
TEST(Parse, RandomWordsNeverEscape) {
  const std::vector<std::string> words{"--ratio",
                                       "--ratio=",
                                       "--force",
                                       "--no-force",
                                       "--no-force=",
                                       "-h2",
                                       "-",
                                       "--",
                                       "-5",
                                       "--5",
                                       "---",
                                       "-=",
                                       "--=",
                                       "--=x",
                                       "[a]",
                                       "{}",
                                       "",
                                       "m",
                                       "-x=1",
                                       "--json=\x01",
                                       "\x01",
                                       "--metrics=[a,b]",
                                       "--explain",
                                       "--json-schema=x",
                                       "++",
                                       "/ratio",
                                       "--model",
                                       "%",
                                       "\xff\xfe",
                                       "--no-json-schema",
                                       "--explain=",
                                       "-f",
                                       "--Ratio"};
  const Sample sample;
  RandomStream random(7);
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> line(random.below(6));
    for (std::string& word : line) word = words[random.below(words.size())];
    try {
      parse_arguments("prune", sample.list, line);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_FALSE(error.hint_text().empty());
    } catch (const std::exception& error) {
      std::string text;
      for (const std::string& word : line) text += " '" + word + "'";
      FAIL() << error.what() << " for" << text;
    }
  }
}

TEST(Parse, MissingValues) {
  EXPECT_EQ(failure({"m", "--out"}),
            "--out: needs a value | write --out PATH; `espalier prune --explain out` tells what it "
            "takes");
  EXPECT_EQ(failure({"--out", "--json"}),
            "--out: needs a value, but --json follows | write --out PATH, or --out=--json if that "
            "is the value");
  EXPECT_EQ(failure({"--keep_last"}).substr(0, 27), "--keep-last: needs a value ");
}

TEST(Parse, SurplusArguments) {
  EXPECT_EQ(failure({"a", "b"}),
            "b: unexpected argument of `espalier prune` | the form is: espalier prune MODEL --out "
            "PATH [flags]");
}

TEST(Parse, PositionalListsTakeWordsWithCommas) {
  struct Runs {
    std::vector<std::string> runs;
    void visit(detail::Describer& option) { option("runs", runs, "folders", positional("RUN")); }
  } runs;
  const OptionList list = describe(runs);
  EXPECT_EQ(usage_line("report", list), "espalier report [RUN...] [flags]");
  std::string all;
  for (const auto& [option, text] : parse_arguments("report", list, {"a,b", "c"}).values)
    all += (all.empty() ? "" : ",") + text;
  list.front().set(all);
  EXPECT_EQ(runs.runs, (std::vector<std::string>{"a,b", "c"}));
}

TEST(Parse, UsageLine) {
  const Sample sample;
  EXPECT_EQ(usage_line("prune", sample.list), "espalier prune MODEL --out PATH [flags]");
}

}  // namespace
}  // namespace espalier::cli
