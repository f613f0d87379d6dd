// Whole-file reading and atomic writing.
#include "espalier/base/file.h"

#include <cerrno>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

template <class Function>
Error error_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "did not throw";
  return Error(ErrorKind::kInternal, "", "");
}

TEST(File, RoundTripKeepsEveryByte) {
  const TempFolder folder;
  std::string bytes;
  for (int i = 0; i < 256 * 300; ++i) bytes += static_cast<char>(i);
  EXPECT_EQ(read_file(folder.write("x", bytes)), bytes);
  EXPECT_EQ(read_file(folder.write("empty", "")), "");
}

TEST(File, OverwritingReplacesAndLeavesNoTemporary) {
  const TempFolder folder;
  folder.write("x", "long old content");
  folder.write("x", "new");
  EXPECT_EQ(read_file(folder / "x"), "new");
  EXPECT_FALSE(std::filesystem::exists(folder / "x.tmp"));
}

TEST(File, ReadingWhatReportsNoSizeWorks) { EXPECT_FALSE(read_file("/proc/self/status").empty()); }

TEST(File, BadInputIsNamed) {
  const TempFolder folder;
  const auto path = folder.write("x", "0123456789");
  EXPECT_EQ(error_of([&] { read_file(folder / "none"); }).kind(), ErrorKind::kInput);
  EXPECT_EQ(error_of([&] { read_file(folder.path()); }).message(), "is a folder, expected a file");
  const Error large = error_of([&] { read_file(path, 9); });
  EXPECT_EQ(large.kind(), ErrorKind::kInput);
  EXPECT_NE(large.message().find("larger than the limit"), std::string::npos);
}

TEST(File, WritingIntoNothingIsAResourceError) {
  const Error error = error_of([] { write_file_atomically("/nonexistent/folder/file", "x"); });
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_NE(error.message().find("No such file"), std::string::npos);
}

TEST(File, FullDiskHasAHint) {
  const Error full = error_of([] { throw_write_error("/x", ENOSPC); });
  EXPECT_EQ(full.kind(), ErrorKind::kResource);
  EXPECT_NE(full.hint_text().find("free some space"), std::string::npos);
  EXPECT_NE(error_of([] { throw_write_error("/x", EDQUOT); }).hint_text().find("free some space"),
            std::string::npos);
  EXPECT_NE(error_of([] { throw_write_error("/x", EROFS); }).hint_text().find("--out"),
            std::string::npos);
}

}  // namespace
}  // namespace espalier
