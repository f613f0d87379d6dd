// What a run folder promises: complete or absent, nobody else's files touched, errors that say what
// to type.
#include "espalier/run/run_folder.h"

#include <set>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include <gtest/gtest.h>
#include <stdio.h>

#include "espalier/base/json_internal.h"
#include "espalier/run/test_support_internal.h"

namespace fs = std::filesystem;

namespace espalier {
namespace {

using run_test::error_of;
using run_test::in_child;
using run_test::read_text;
using run_test::TempFolder;
using run_test::write_text;

RunFolder make(const fs::path& out, OutputPolicy policy = OutputPolicy::kFresh) {
  return RunFolder::create(out, policy, {.verb = "prune", .command_line = "espalier prune m"});
}

void publish_with(const fs::path& out, const std::string& content,
                  OutputPolicy policy = OutputPolicy::kFresh) {
  RunFolder run = make(out, policy);
  write_text(run.folder() / "model.txt", content);
  run.publish();
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

TEST(RunFolder, PublishMovesTheWholeFolder) {
  const TempFolder tmp;
  {
    RunFolder run = make(tmp / "out");
    EXPECT_EQ(run.out(), tmp / "out");
    EXPECT_EQ(run.folder(), tmp / "out.partial");
    EXPECT_FALSE(run.resumed());
    EXPECT_FALSE(fs::exists(tmp / "out"));
    write_text(run.folder() / "sub" / "weights", "1234");
    run.publish();
  }
  EXPECT_EQ(names_in(tmp.path()), std::set<std::string>{"out"});
  EXPECT_EQ(read_text(tmp / "out/sub/weights"), "1234");
  EXPECT_EQ(names_in(tmp / "out/run"), std::set<std::string>{"manifest.json"});
}

TEST(RunFolder, RefusedInputLeavesNothing) {
  const TempFolder tmp;
  { const RunFolder run = make(tmp / "a/b/out"); }
  EXPECT_TRUE(names_in(tmp.path()).empty()) << "made parents must go too";
  fs::create_directory(tmp / "a");
  write_text(tmp / "a/other", "x");
  { const RunFolder run = make(tmp / "a/b/out"); }
  EXPECT_EQ(names_in(tmp / "a"), std::set<std::string>{"other"});
}

TEST(RunFolder, MissingParentsAreMade) {
  const TempFolder tmp;
  publish_with(tmp / "a/b/c/out", "x");
  EXPECT_EQ(read_text(tmp / "a/b/c/out/model.txt"), "x");
}

TEST(RunFolder, ExistingOutNeedsOverwrite) {
  const TempFolder tmp;
  publish_with(tmp / "out", "old");
  for (const OutputPolicy policy : {OutputPolicy::kFresh, OutputPolicy::kResume}) {
    const Error error = error_of([&] { make(tmp / "out", policy); });
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(error.subject(), (tmp / "out").string());
    EXPECT_NE(error.message().find("already exists"), std::string::npos);
    EXPECT_NE(error.hint_text().find("--overwrite"), std::string::npos);
    EXPECT_EQ(names_in(tmp.path()), std::set<std::string>{"out"});
  }
  publish_with(tmp / "out", "new", OutputPolicy::kOverwrite);
  EXPECT_EQ(read_text(tmp / "out/model.txt"), "new");
  publish_with(tmp / "out", "newer", OutputPolicy::kResumeOverwrite);
  EXPECT_EQ(read_text(tmp / "out/model.txt"), "newer");
  EXPECT_EQ(names_in(tmp.path()), std::set<std::string>{"out"});
}

TEST(RunFolder, OverwriteKeepsTheOldOneUntilPublish) {
  const TempFolder tmp;
  publish_with(tmp / "out", "old");
  {
    const RunFolder run = make(tmp / "out", OutputPolicy::kOverwrite);
    write_text(run.folder() / "model.txt", "new");
    EXPECT_EQ(read_text(tmp / "out/model.txt"), "old");
  }
  EXPECT_EQ(read_text(tmp / "out/model.txt"), "old");
}

TEST(RunFolder, EmptyOutCountsAsAbsent) {
  const TempFolder tmp;
  fs::create_directory(tmp / "out");
  publish_with(tmp / "out", "x");
  EXPECT_EQ(read_text(tmp / "out/model.txt"), "x");
}

TEST(RunFolder, NeverReplacesWhatEspalierDidNotWrite) {
  const TempFolder tmp;
  write_text(tmp / "home/thesis.tex", "years of work");
  Error error = error_of([&] { make(tmp / "home", OutputPolicy::kOverwrite); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_NE(error.message().find("not written by espalier"), std::string::npos);
  EXPECT_FALSE(error.hint_text().empty());

  write_text(tmp / "home/run/manifest.json", R"({"tool": "somebody else"})");
  EXPECT_EQ(error_of([&] { make(tmp / "home", OutputPolicy::kOverwrite); }).kind(),
            ErrorKind::kUsage);

  write_text(tmp / "x.partial/thesis.tex", "more");
  error = error_of([&] { make(tmp / "x"); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_EQ(error.subject(), (tmp / "x.partial").string());
  EXPECT_EQ(read_text(tmp / "home/thesis.tex"), "years of work");
  EXPECT_EQ(read_text(tmp / "x.partial/thesis.tex"), "more");
}

TEST(RunFolder, OutThatAppearsMeanwhileStays) {
  const TempFolder tmp;
  {
    RunFolder run = make(tmp / "out");
    write_text(tmp / "out/thesis.tex", "mine");
    const Error error = error_of([&] { run.publish(); });
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(error.message().find("appeared"), std::string::npos);
  }
  EXPECT_EQ(read_text(tmp / "out/thesis.tex"), "mine");
  EXPECT_FALSE(fs::exists(tmp / "out.partial"));
}

TEST(RunFolder, OutMustBeAPlaceForAFolder) {
  const TempFolder tmp;
  write_text(tmp / "file", "x");
  EXPECT_NE(
      error_of([&] { make(tmp / "file", OutputPolicy::kOverwrite); }).message().find("is a file"),
      std::string::npos);
  const Error below = error_of([&] { make(tmp / "file/out"); });
  EXPECT_EQ(below.kind(), ErrorKind::kUsage);
  EXPECT_NE(below.message().find("is a file, expected a folder"), std::string::npos);
  for (const char* bad : {"", "/", ".", "..", "a/..", "x.partial"}) {
    EXPECT_EQ(error_of([&] { make(bad); }).kind(), ErrorKind::kUsage) << bad;
  }
  EXPECT_NE(error_of([&] { make("runs/x.partial"); }).hint_text().find("--out runs/x,"),
            std::string::npos);
}

TEST(RunFolder, TrailingSlashesAndLinks) {
  const TempFolder tmp;
  publish_with(tmp / "a//b/", "x");
  EXPECT_EQ(read_text(tmp / "a/b/model.txt"), "x");
  fs::create_directory_symlink(tmp / "a/b", tmp / "link");
  publish_with(tmp / "link", "y", OutputPolicy::kOverwrite);
  EXPECT_TRUE(fs::is_symlink(tmp / "link"));
  EXPECT_EQ(read_text(tmp / "a/b/model.txt"), "y");
  fs::create_symlink(tmp / "nowhere", tmp / "dangling");
  EXPECT_EQ(error_of([&] { make(tmp / "dangling"); }).kind(), ErrorKind::kUsage);
}

TEST(RunFolder, SecondWriterIsRefusedAndToldThePid) {
  const TempFolder tmp;
  RunFolder first = make(tmp / "out");
  write_text(first.folder() / "w", "1");
  for (const OutputPolicy policy :
       {OutputPolicy::kFresh, OutputPolicy::kResume, OutputPolicy::kOverwrite}) {
    EXPECT_EQ(in_child([&] {
                const Error error = error_of([&] { make(tmp / "out", policy); });
                const std::string pid = std::to_string(::getppid());
                const bool named = error.message().find("process " + pid) != std::string::npos &&
                                   error.hint_text().find("kill " + pid) != std::string::npos;
                return error.kind() == ErrorKind::kResource && named ? 0 : 1;
              }),
              0);
  }
  EXPECT_EQ(error_of([&] { make(tmp / "out"); }).kind(), ErrorKind::kResource) << "same process";
  first.publish();
  EXPECT_EQ(read_text(tmp / "out/w"), "1");
}

TEST(RunFolder, ForkedChildDoesNotRemoveItsParentsFolder) {
  const TempFolder tmp;
  auto run = std::make_unique<RunFolder>(make(tmp / "out"));
  EXPECT_EQ(in_child([&] {
              run.reset();
              return 0;
            }),
            0);
  EXPECT_TRUE(fs::exists(tmp / "out.partial/run/lock"));
}

TEST(RunFolder, DeadRunIsCleanedOrResumed) {
  const TempFolder tmp;
  const auto die = [&] {
    EXPECT_EQ(in_child([&] {
                RunFolder run = make(tmp / "out", OutputPolicy::kResume);
                write_text(run.run_dir() / "checkpoints/7", "state");
                run.metrics(1, {{"loss", 2.5}});
                ::raise(SIGKILL);
                return 0;
              }),
              1000 + SIGKILL);
    EXPECT_TRUE(fs::exists(tmp / "out.partial/run/lock"));
    EXPECT_FALSE(fs::exists(tmp / "out"));
  };
  die();
  {
    const RunFolder run = make(tmp / "out");
    EXPECT_FALSE(run.resumed());
    EXPECT_FALSE(fs::exists(run.run_dir() / "checkpoints"));
  }
  EXPECT_TRUE(names_in(tmp.path()).empty());
  die();
  RunFolder run = make(tmp / "out", OutputPolicy::kResume);
  EXPECT_TRUE(run.resumed());
  EXPECT_EQ(read_text(run.run_dir() / "checkpoints/7"), "state");
  run.metrics(2, {{"loss", 2.0}});
  run.publish();
  EXPECT_EQ(read_text(tmp / "out/run/metrics.jsonl"),
            "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.0}\n");
  EXPECT_EQ(parse_json(read_text(tmp / "out/run/manifest.json"), "m")["sessions"], 2);
}

TEST(RunFolder, KeepLeavesAResumablePartialWithAManifest) {
  const TempFolder tmp;
  {
    RunFolder run = make(tmp / "out");
    run.keep();
  }
  const Json manifest = parse_json(read_text(tmp / "out.partial/run/manifest.json"), "m");
  EXPECT_EQ(manifest["state"], "interrupted");
  EXPECT_EQ(manifest["exit"], 130);
  EXPECT_TRUE(make(tmp / "out", OutputPolicy::kResume).resumed());
}

TEST(RunFolder, InputsMustLieApart) {
  const TempFolder tmp;
  write_text(tmp / "model/config.json", "{}");
  const auto refused = [&](const std::string& out, const std::string& input) {
    RunFolder run = make(tmp / out, OutputPolicy::kOverwrite);
    return error_of([&] { run.add_input(tmp / input, ""); });
  };
  EXPECT_NE(refused("model/pruned", "model").message().find("inside the input folder"),
            std::string::npos);
  publish_with(tmp / "run1", "x");
  EXPECT_NE(refused("run1", "run1").message().find("the input itself"), std::string::npos);
  EXPECT_NE(refused("run1", "run1/model.txt").message().find("would be replaced"),
            std::string::npos);
  EXPECT_EQ(refused("run1", "run1").kind(), ErrorKind::kUsage);
  fs::create_directory_symlink(tmp / "run1", tmp / "alias");
  EXPECT_EQ(refused("run1", "alias").kind(), ErrorKind::kUsage);
  EXPECT_EQ(refused("fresh", "missing").kind(), ErrorKind::kInput);
  check_output_apart(tmp / "model2", {tmp / "model"});  // a common prefix is not a folder
  EXPECT_TRUE(fs::exists(tmp / "model/config.json"));
  EXPECT_FALSE(fs::exists(tmp / "model/pruned.partial"));
}

TEST(RunFolder, ManifestHoldsInputsOutputsAndFacts) {
  const TempFolder tmp;
  write_text(tmp / "model/config.json", "{}");
  {
    RunFolder run = RunFolder::create(tmp / "out", OutputPolicy::kFresh,
                                      {.verb = "prune",
                                       .command_line = "espalier prune model",
                                       .resolved_recipe = "ratio: 0.25\n",
                                       .seed = 18446744073709551615ull,
                                       .device = "cpu",
                                       .threads = 2});
    run.add_input(tmp / "model", "");
    run.add_output_digest("./w.bin", "xxh3:00");
    run.add_fact("predicted_peak_bytes", "1");
    run.add_fact("predicted_peak_bytes", "123");
    write_text(run.folder() / "w.bin", "12345");
    run.publish();
  }
  const Json m = parse_json(read_text(tmp / "out/run/manifest.json"), "m");
  EXPECT_EQ(m["tool"], "espalier");
  EXPECT_EQ(m["verb"], "prune");
  EXPECT_EQ(m["command"], "espalier prune model");
  EXPECT_EQ(m["seed"].get<std::uint64_t>(), 18446744073709551615ull);
  EXPECT_EQ(m["state"], "finished");
  EXPECT_EQ(m["exit"], 0);
  EXPECT_EQ(m["threads"], 2);
  EXPECT_FALSE(m["libtorch"].get<std::string>().empty());
  EXPECT_EQ(m["inputs"][0]["bytes"], 2);
  EXPECT_TRUE(m["inputs"][0]["digest"].is_null());
  ASSERT_EQ(m["outputs"].size(), 2u);
  EXPECT_EQ(m["outputs"][0]["path"], "run/recipe.resolved.yaml");
  EXPECT_EQ(m["outputs"][1]["path"], "w.bin");
  EXPECT_EQ(m["outputs"][1]["bytes"], 5);
  EXPECT_EQ(m["outputs"][1]["digest"], "xxh3:00");
  EXPECT_EQ(m["facts"]["predicted_peak_bytes"], 123);
  EXPECT_GT(m["peak_rss_bytes"].get<std::int64_t>(), 0);
  EXPECT_EQ(read_text(tmp / "out/run/recipe.resolved.yaml"), "ratio: 0.25\n");
}

TEST(RunFolder, FactsThatAreNotJsonAreOurBug) {
  const TempFolder tmp;
  RunFolder run = make(tmp / "out");
  EXPECT_EQ(error_of([&] { run.add_fact("peak", "12 GiB"); }).kind(), ErrorKind::kInternal);
}

TEST(RunFolder, LogIsTeed) {
  struct Recorder final : Reporter {
    std::string seen;
    void log(LogLevel, std::string_view message) override { seen += message; }
    std::unique_ptr<ProgressPhase> phase(std::string_view n, std::int64_t t,
                                         std::string_view u) override {
      return silent_reporter().phase(n, t, u);
    }
  } recorder;
  const TempFolder tmp;
  {
    RunFolder run = make(tmp / "out");
    Reporter& log = run.log_to_file(recorder);
    log.warn("two\nlines");
    log.phase("scoring", 3, "layers")->update(3);
    run.publish();
    log.debug("late");
  }
  EXPECT_EQ(recorder.seen, "two\nlineslate");
  const std::string text = read_text(tmp / "out/run/log.txt");
  EXPECT_NE(text.find("Z warn  two\n"), std::string::npos);
  EXPECT_NE(text.find("Z warn  lines\n"), std::string::npos);
  EXPECT_NE(text.find("Z phase scoring: 3 layers in "), std::string::npos);
  EXPECT_NE(text.find("Z debug late\n"), std::string::npos);
}

TEST(RunFolder, UnwritablePlaceIsAResourceErrorWithAHint) {
  const TempFolder tmp;
  fs::create_directory(tmp / "ro");
  fs::permissions(tmp.path(), fs::perms(0755));
  fs::permissions(tmp / "ro", fs::perms(0555));
  EXPECT_EQ(in_child([&] {
              if (::getuid() == 0 && ::setuid(65534) != 0) return 1;  // root may write anywhere
              for (const char* name : {"ro/out", "ro/deep/out"}) {
                const Error error = error_of([&] { make(tmp / name); });
                if (error.kind() != ErrorKind::kResource) return 2;
                if (error.message().find("Permission denied") == std::string::npos) return 3;
                if (error.hint_text().find("--out") == std::string::npos) return 4;
              }
              return 0;
            }),
            0);
  fs::permissions(tmp / "ro", fs::perms(0755));
  EXPECT_TRUE(names_in(tmp / "ro").empty());
}

TEST(RunFolder, FailedWritesAreErrorsAndLeaveNothing) {
  const TempFolder tmp;
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              RunFolder run = make(tmp / "out");
              const rlimit limit{2000, 2000};  // bytes per file: stands for a full disk
              ::setrlimit(RLIMIT_FSIZE, &limit);
              for (int step = 0; step < 1000; ++step) {
                try {
                  run.metrics(step, {{"loss", 1.0}});
                } catch (const Error& error) {
                  return error.kind() == ErrorKind::kResource && step > 10 ? 7 : 1;
                }
              }
              return 2;
            }),
            7);
  EXPECT_TRUE(names_in(tmp.path()).empty());
}

TEST(RunFolder, PolicyOfTheTwoFlags) {
  EXPECT_EQ(output_policy(false, false), OutputPolicy::kFresh);
  EXPECT_EQ(output_policy(true, false), OutputPolicy::kOverwrite);
  EXPECT_EQ(output_policy(false, true), OutputPolicy::kResume);
  EXPECT_EQ(output_policy(true, true), OutputPolicy::kResumeOverwrite);
}

}  // namespace
}  // namespace espalier
