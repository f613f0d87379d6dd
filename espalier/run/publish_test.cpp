// Publishing under fire: a process that replaces OUT over and over is killed at random moments; OUT
// must always be one whole generation. Also the recovery of each state that a kill can leave, made
// by hand.
#include <thread>
#include <utility>

#include <signal.h>

#include <gtest/gtest.h>
#include <stdio.h>
#include <time.h>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/random.h"
#include "espalier/run/lock_internal.h"
#include "espalier/run/publish_internal.h"
#include "espalier/run/run_folder.h"
#include "espalier/run/test_support_internal.h"

namespace fs = std::filesystem;

namespace espalier::run_internal {
namespace {

using run_test::error_of;
using run_test::read_text;
using run_test::start_child;
using run_test::TempFolder;
using run_test::wait_for;
using run_test::write_text;

constexpr int kFiles = 12;

void write_generation(const fs::path& folder, int generation) {
  for (int i = 0; i < kFiles; ++i) {
    write_text(folder / format("part{}", i % 3) / format("{}", i), std::to_string(generation));
  }
}

/// The generation of a whole folder; -1 when it is mixed or incomplete.
int generation_of(const fs::path& folder) {
  std::string seen;
  for (int i = 0; i < kFiles; ++i) {
    const std::string text = read_text(folder / format("part{}", i % 3) / format("{}", i));
    if (text.empty() || (i > 0 && text != seen)) return -1;
    seen = text;
  }
  const Json manifest = parse_json(read_text(folder / "run/manifest.json"), "manifest");
  return manifest["state"] == "finished" ? std::stoi(seen) : -1;
}

void make_finished(const fs::path& folder, int generation) {
  write_generation(folder, generation);
  write_text(folder / "run/manifest.json", R"({"tool": "espalier", "state": "finished"})");
}

/// A memory file system where there is one: there a publish is mostly renames, so the kills fall
/// among them.
fs::path fast_folder() {
  return fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path();
}

/// Kills `body` (an endless loop in a child) at a random moment within `limit_us`.
template <class Body>
void kill_at_random(RandomStream& random, std::uint64_t limit_us, Body&& body) {
  const pid_t child = start_child(std::forward<Body>(body));
  std::this_thread::sleep_for(std::chrono::microseconds(random.below(limit_us)));
  ::kill(child, SIGKILL);
  EXPECT_EQ(wait_for(child), 1000 + SIGKILL);
}

void publish_generation(const fs::path& out, int generation) {
  RunFolder run = RunFolder::create(out, OutputPolicy::kOverwrite, {});
  write_generation(run.folder(), generation);
  run.publish();
}

TEST(Publish, KilledAtRandomMomentsOutIsOldOrNew) {
  for (const auto& [parent, rounds] :
       {std::pair{fast_folder(), 40}, {fs::temp_directory_path(), 10}}) {
    const TempFolder tmp(parent);
    const fs::path out = tmp / "out";
    publish_generation(out, 0);
    // The window in which a kill falls grows until several publishes fit, however busy the disk is.
    std::uint64_t limit_us = 4000;
    publish_generation(out, 1);
    RandomStream random(7, "kill");
    int last = 1;
    for (int round = 0; round < rounds || (last < 4 && round < 100); ++round) {
      kill_at_random(random, limit_us, [&] {
        for (int generation = last + 1;; ++generation) publish_generation(out, generation);
        return 0;
      });
      const int now = generation_of(out);
      ASSERT_GE(now, last) << "round " << round;
      if (now < last + 2) limit_us = std::min<std::uint64_t>(limit_us * 3 / 2, 300'000);
      last = now;
    }
    EXPECT_GE(last, 4) << "the kills came too early to prove anything";
    { const RunFolder run = RunFolder::create(out, OutputPolicy::kOverwrite, {}); }
    EXPECT_EQ(std::distance(fs::directory_iterator(tmp.path()), {}), 1) << "left over";
    EXPECT_EQ(generation_of(out), last);
  }
}

TEST(Publish, WithoutExchangeRecoveryPutsTheOldOneBack) {
  const TempFolder tmp(fast_folder());
  const fs::path out = tmp / "out";
  make_finished(out, 0);
  RandomStream random(8, "kill");
  int last = 0, restored = 0;
  for (int round = 0; round < 60; ++round) {
    kill_at_random(random, 6'000, [&] {
      for (int generation = last + 1;; ++generation) {
        recover_output(out);
        const fs::path partial = partial_path(out);
        remove_marked_folder(partial);
        write_text(partial / "run/lock", "1\nespalier run in progress\n");
        make_finished(partial, generation);
        publish_folder(out, true, Swap::kRenames);
      }
      return 0;
    });
    restored += fs::exists(out) ? 0 : 1;
    recover_output(out);
    const int now = generation_of(out);
    ASSERT_GE(now, last) << "round " << round;
    last = now;
  }
  EXPECT_GT(last, 20);
  RecordProperty("killed_between_the_renames", restored);
}

TEST(Publish, OldOutIsRestoredWhenOutIsMissing) {
  const TempFolder tmp;
  make_finished(tmp / "out.old.1", 3);
  make_finished(tmp / "out.partial", 4);
  write_text(tmp / "out.partial/run/lock", "1\nespalier run in progress\n");
  EXPECT_EQ(error_of([&] { RunFolder::create(tmp / "out", OutputPolicy::kFresh, {}); }).kind(),
            ErrorKind::kUsage);
  EXPECT_EQ(generation_of(tmp / "out"), 3);
  EXPECT_FALSE(fs::exists(tmp / "out.old.1"));
}

TEST(Publish, OldOutOfADeadProcessIsRemoved) {
  const TempFolder tmp;
  const int dead = start_child([] { return 0; });
  wait_for(dead);
  make_finished(tmp / "out", 4);
  make_finished(tmp / format("out.old.{}", dead), 3);
  make_finished(tmp / "out.old.1", 3);          // a living process cleans up itself
  write_text(tmp / "out.old.notes/mine", "x");  // not ours
  write_text(tmp / "out.old.77/mine", "x");     // not ours either: no mark
  recover_output(tmp / "out");
  EXPECT_FALSE(fs::exists(tmp / format("out.old.{}", dead)));
  EXPECT_TRUE(fs::exists(tmp / "out.old.1"));
  EXPECT_TRUE(fs::exists(tmp / "out.old.notes/mine"));
  EXPECT_TRUE(fs::exists(tmp / "out.old.77/mine"));
  EXPECT_EQ(generation_of(tmp / "out"), 4);
}

TEST(Publish, KilledAfterTheExchange) {
  const TempFolder tmp;
  make_finished(tmp / "out", 4);
  write_text(tmp / "out/run/lock", "1\nespalier run in progress\n");
  make_finished(tmp / "out.partial", 3);  // the old one: a manifest and no lock
  recover_output(tmp / "out");
  EXPECT_FALSE(fs::exists(tmp / "out.partial"));
  EXPECT_FALSE(fs::exists(tmp / "out/run/lock"));
  EXPECT_EQ(generation_of(tmp / "out"), 4);
}

TEST(Publish, CompletePartialWithoutOutIsNotLost) {
  const TempFolder tmp;
  make_finished(tmp / "out.partial", 3);
  recover_output(tmp / "out");
  EXPECT_EQ(generation_of(tmp / "out"), 3);
}

TEST(Publish, RemovalIsRefusedWithoutTheMark) {
  const TempFolder tmp;
  write_text(tmp / "home/file", "x");
  const Error error = error_of([&] { remove_marked_folder(tmp / "home"); });
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_NE(error.message().find("not written by espalier"), std::string::npos);
  EXPECT_TRUE(fs::exists(tmp / "home/file"));
}

TEST(Publish, RemovalDoesNotFollowLinks) {
  const TempFolder tmp;
  write_text(tmp / "precious/file", "x");
  make_finished(tmp / "out", 1);
  fs::create_directory_symlink(tmp / "precious", tmp / "out/link");
  remove_marked_folder(tmp / "out");
  EXPECT_FALSE(fs::exists(tmp / "out"));
  EXPECT_TRUE(fs::exists(tmp / "precious/file"));
}

TEST(Publish, LockIsFreedByDeathAndCheckedByName) {
  const TempFolder tmp;
  EXPECT_EQ(run_test::in_child([&] {
              const FileDescriptor held = take_lock(tmp / "lock", "out");
              ::raise(SIGKILL);
              return 0;
            }),
            1000 + SIGKILL);
  const FileDescriptor held = take_lock(tmp / "lock", "out");
  EXPECT_EQ(std::stoi(read_text(tmp / "lock")), ::getpid());
  EXPECT_TRUE(is_lock_text(read_text(tmp / "lock")));
  EXPECT_EQ(error_of([&] { take_lock(tmp / "lock", "out"); }).subject(), "out");
  fs::rename(tmp / "lock", tmp / "moved");  // as publish does
  EXPECT_TRUE(take_lock(tmp / "lock", "out").valid());
}

TEST(Publish, ManyWritersTakeTurns) {
  const TempFolder tmp(fast_folder());
  const fs::path out = tmp / "out";
  std::vector<pid_t> children;
  for (int worker = 0; worker < 4; ++worker) {
    children.push_back(start_child([&, worker] {
      for (int i = 0; i < 25; ++i) {
        try {
          RunFolder run = RunFolder::create(out, OutputPolicy::kOverwrite, {});
          write_generation(run.folder(), 100 * worker + i);
          run.publish();
        } catch (const Error& error) {
          if (error.kind() != ErrorKind::kResource) throw;  // held by another one: its pid is named
        }
      }
      return 0;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  EXPECT_GE(generation_of(out), 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(tmp.path()), {}), 1);
}

}  // namespace
}  // namespace espalier::run_internal
