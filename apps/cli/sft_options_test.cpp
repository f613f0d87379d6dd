// The data options: names reach the library, the hold-out comes off, what was read is said.
#include "apps/cli/sft_options.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"

#include "tests/support/byte_tokenizer.h"

namespace espalier::cli {
namespace {

/// Keeps what was said.
struct Listener final : Reporter {
  std::string said;
  void log(LogLevel, std::string_view message) override { said += std::string(message) + "\n"; }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
};

TEST(SftDataOptions, ReachTheLibrary) {
  SftDataOptions options;
  const SftOptions plain = options.library_options();
  EXPECT_EQ(plain.format, SftFormat::kAuto);
  EXPECT_EQ(plain.train_on, TrainOn::kAnswer);
  EXPECT_EQ(plain.dolly_mask, DollyMask::kFull);
  options.format = "dolly";
  options.train_on = "all";
  options.dolly_mask = "compat";
  options.seq_len = 99;
  options.special_in_text = false;
  const SftOptions given = options.library_options();
  EXPECT_EQ(given.format, SftFormat::kDolly);
  EXPECT_EQ(given.train_on, TrainOn::kAll);
  EXPECT_EQ(given.dolly_mask, DollyMask::kCompat);
  EXPECT_EQ(given.cutoff, 99);
  EXPECT_FALSE(given.special_in_text);
}

TEST(SftDataOptions, RowsAreReadSplitAndCounted) {
  const TempFolder folder;
  std::string text;
  for (int i = 0; i < 10; ++i)
    text += R"({"prompt": "a", "completion": "b"})"
            "\n";
  SftDataOptions options;
  options.data = folder.write("rows.jsonl", text).string();
  options.holdout = 3;
  Listener listener;
  const Tokenizer tokenizer = testing_support::byte_tokenizer();
  const SftParts parts = load_sft_parts(options, tokenizer, listener, never_stop());
  EXPECT_EQ(parts.training.rows.size(), 7);
  EXPECT_EQ(parts.held_out.size(), 3);
  EXPECT_EQ(parts.training.rows.counts.read, 10);
  EXPECT_NE(listener.said.find("10 rows of completion: 10 to train on"), std::string::npos);
  options.holdout = 10;
  try {
    load_sft_parts(options, tokenizer, listener, never_stop());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(error.subject(), "--holdout");
  }
}

}  // namespace
}  // namespace espalier::cli
