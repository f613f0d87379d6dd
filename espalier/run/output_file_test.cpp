// A single output file: complete or absent, like a run folder.
#include <signal.h>

#include <gtest/gtest.h>
#include <stdio.h>

#include "espalier/base/random.h"
#include "espalier/run/run_folder.h"
#include "espalier/run/test_support_internal.h"

namespace fs = std::filesystem;

namespace espalier {
namespace {

using run_test::error_of;
using run_test::in_child;
using run_test::read_text;
using run_test::TempFolder;
using run_test::write_text;

void publish_with(const fs::path& out, const std::string& text, OutputPolicy policy) {
  OutputFile file = OutputFile::create(out, policy);
  write_text(file.partial(), text);
  file.publish();
}

int entries(const TempFolder& tmp) {
  return static_cast<int>(std::distance(fs::directory_iterator(tmp.path()), {}));
}

TEST(OutputFile, IsRenamedIntoPlace) {
  const TempFolder tmp;
  publish_with(tmp / "a/m.gguf", "one", OutputPolicy::kFresh);
  EXPECT_EQ(read_text(tmp / "a/m.gguf"), "one");
  const Error error =
      error_of([&] { publish_with(tmp / "a/m.gguf", "two", OutputPolicy::kFresh); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_NE(error.hint_text().find("--overwrite"), std::string::npos);
  publish_with(tmp / "a/m.gguf", "two", OutputPolicy::kOverwrite);
  EXPECT_EQ(read_text(tmp / "a/m.gguf"), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(tmp / "a"), {}), 1);
}

TEST(OutputFile, UnpublishedLeavesNothing) {
  const TempFolder tmp;
  {
    const OutputFile file = OutputFile::create(tmp / "a/m.gguf", OutputPolicy::kFresh);
    write_text(file.partial(), "half");
  }
  EXPECT_EQ(entries(tmp), 0);
}

TEST(OutputFile, FoldersDevicesAndStrangersAreRefused) {
  const TempFolder tmp;
  fs::create_directory(tmp / "dir");
  EXPECT_NE(error_of([&] { OutputFile::create(tmp / "dir", OutputPolicy::kOverwrite); })
                .message()
                .find("folder"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { OutputFile::create("/dev/null", OutputPolicy::kOverwrite); }).kind(),
            ErrorKind::kUsage);
  write_text(tmp / "m.partial", "a download of somebody else");
  EXPECT_EQ(error_of([&] { OutputFile::create(tmp / "m", OutputPolicy::kOverwrite); }).kind(),
            ErrorKind::kUsage);
  EXPECT_EQ(read_text(tmp / "m.partial"), "a download of somebody else");
}

TEST(OutputFile, SecondWriterIsRefused) {
  const TempFolder tmp;
  const OutputFile file = OutputFile::create(tmp / "m", OutputPolicy::kFresh);
  const Error error = error_of([&] { OutputFile::create(tmp / "m", OutputPolicy::kFresh); });
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_NE(error.message().find(std::to_string(::getpid())), std::string::npos);
}

TEST(OutputFile, KilledRunLeavesTheOldFile) {
  const TempFolder tmp;
  publish_with(tmp / "m", "old", OutputPolicy::kFresh);
  EXPECT_EQ(in_child([&] {
              const OutputFile file = OutputFile::create(tmp / "m", OutputPolicy::kOverwrite);
              write_text(file.partial(), "half");
              ::raise(SIGKILL);
              return 0;
            }),
            1000 + SIGKILL);
  EXPECT_EQ(read_text(tmp / "m"), "old");
  publish_with(tmp / "m", "new", OutputPolicy::kOverwrite);
  EXPECT_EQ(read_text(tmp / "m"), "new");
  EXPECT_EQ(entries(tmp), 1);
}

}  // namespace
}  // namespace espalier
