// Mapping whole files, and hints about their pages.
#include "espalier/io/mapped_file.h"

#include "espalier/base/units.h"
#include "espalier/io/testing_internal.h"

namespace espalier {
namespace {

TEST(MappedFile, ShowsTheBytesAndOutlivesTheName) {
  const TempFolder folder;
  const auto path = folder.write("x", "hello");
  const auto file = MappedFile::open(path);
  std::filesystem::remove(path);
  EXPECT_EQ(text_of(file->bytes()), "hello");
  EXPECT_EQ(file->size(), 5u);
  EXPECT_EQ(file->path(), path);
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const TempFolder folder;
  const auto file = MappedFile::open(folder.write("x", ""));
  EXPECT_TRUE(file->bytes().empty());
  EXPECT_NO_THROW(file->will_need(file->bytes()));
  EXPECT_NO_THROW(file->release(file->bytes()));
}

TEST(MappedFile, MissingFoldersAndSpecialFilesAreRefused) {
  const TempFolder folder;
  const Error missing = error_of([&] { MappedFile::open(folder / "none"); });
  EXPECT_EQ(missing.kind(), ErrorKind::kInput);
  EXPECT_TRUE(contains(missing.what(), "No such file"));
  EXPECT_EQ(error_of([&] { MappedFile::open(folder.path()); }).message(),
            "is a folder, expected a file");
  EXPECT_EQ(error_of([&] { MappedFile::open("/dev/null"); }).message(), "is not a regular file");
}

TEST(MappedFile, ReleasedPagesLeaveTheResidentSetAndComeBackUnchanged) {
  const TempFolder folder;
  const std::string bytes(32 << 20, 'r');
  const auto file = MappedFile::open(folder.write("x", bytes));
  const auto touch = [&] {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < file->size(); i += 4096)
      sum += std::to_integer<std::uint64_t>(file->bytes()[i]);
    return sum;
  };
  const std::uint64_t first = touch();
  const std::int64_t resident = current_rss().count;
  file->release(file->bytes());
  EXPECT_LT(current_rss().count, resident - (24 << 20));
  EXPECT_EQ(touch(), first);
}

}  // namespace
}  // namespace espalier
