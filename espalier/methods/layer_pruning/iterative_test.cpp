// Pruning in rounds: what goes when, resuming, refusals. Healing is a stand-in that copies.
#include "espalier/methods/layer_pruning/iterative.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;
using Layers = std::vector<std::int64_t>;

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

struct Setting {
  TemporaryFolder dir;
  PruneJob job;
  PruneRequest request;
  int heals = 0, fail_at = 1 << 30;

  Setting() {
    TinyDecoder{.layers = 8}.write_folder(dir / "model");
    job.source = dir / "model";
    job.command_line = "espalier prune model --iterative";
    request.count = 5;
    request.method = "reverse";
  }
  IterativeOutcome run(OutputPolicy policy, std::int64_t step = 2) {
    const HealFunction heal = [this](const fs::path& pruned, const fs::path& healed) {
      if (++heals == fail_at) throw Error(ErrorKind::kResource, "disk", "is full");
      fs::copy(pruned, healed, fs::copy_options::recursive);
      return format(R"({{"loss_last": {}}})", heals);
    };
    RunFolder folder = RunFolder::create(dir / "out", policy, {.verb = "prune"});
    IterativeOutcome outcome =
        prune_iteratively(job, request, step, heal, folder, silent_reporter(), never_stop());
    folder.publish();
    return outcome;
  }
};

TEST(Iterative, RoundsRemoveAndHealUntilAllAreGone) {
  Setting s;
  const IterativeOutcome outcome = s.run(OutputPolicy::kFresh);
  ASSERT_EQ(outcome.rounds.size(), 3u);
  EXPECT_EQ(outcome.rounds[0].removed, (Layers{6, 7}));
  EXPECT_EQ(outcome.rounds[1].removed, (Layers{4, 5}));
  EXPECT_EQ(outcome.rounds[2].removed, (Layers{3}));
  EXPECT_EQ(outcome.kept, (Layers{0, 1, 2}));
  EXPECT_EQ(outcome.removed, (Layers{3, 4, 5, 6, 7}));
  EXPECT_EQ(s.heals, 3);
  EXPECT_EQ(DecoderCheckpoint::open(s.dir / "out")->config().num_layers, 3);
  const Json record = read_json_file(s.dir / "out/espalier_pruning.json");
  EXPECT_EQ(record["layers_before"], 8);
  EXPECT_EQ(record["kept"].dump(), "[0,1,2]");
  EXPECT_EQ(record["rounds"].size(), 3u);
  EXPECT_EQ(record["rounds"][1]["healing"]["loss_last"], 2);
  EXPECT_TRUE(has(read_file(s.dir / "out/README.md"), "in 3 rounds, chosen by"));
  EXPECT_TRUE(fs::exists(s.dir / "out/run/manifest.json"));
  EXPECT_FALSE(fs::exists(s.dir / "out/run/rounds/01/healed"));
}

TEST(Iterative, AStoppedRunGoesOnWithItsRound) {
  Setting s;
  s.fail_at = 2;
  EXPECT_THROW(s.run(OutputPolicy::kFresh), Error);
  EXPECT_TRUE(fs::exists(s.dir / "out.partial/run/rounds/01/round.json"));
  s.fail_at = 1 << 30;
  const IterativeOutcome outcome = s.run(OutputPolicy::kResume);
  EXPECT_EQ(outcome.resumed_rounds, 1);
  EXPECT_EQ(s.heals, 4);  // 1 done, 2 failed, then 2 and 3
  EXPECT_EQ(outcome.kept, (Layers{0, 1, 2}));
}

TEST(Iterative, ResumingSomethingElseIsRefused) {
  Setting s;
  s.fail_at = 2;
  EXPECT_THROW(s.run(OutputPolicy::kFresh), Error);
  s.request.count = 4;
  try {
    s.run(OutputPolicy::kResume);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(error.message(), "the interrupted run had count 5, now it is 4");
  }
}

TEST(Iterative, ListsAreRefused) {
  Setting s;
  s.request.count.reset();
  s.request.method = "auto";
  s.request.remove = "3";
  try {
    s.run(OutputPolicy::kFresh);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(error.subject(), "--iterative");
  }
  EXPECT_FALSE(fs::exists(s.dir / "out.partial"));
}

}  // namespace
}  // namespace espalier::layer_pruning
