// Entries in order through every filter, and archives that are damaged.
#include "espalier/io/archive_reader.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/io/archive_testing_internal.h"

namespace espalier {
namespace {

std::string pseudo_random(std::size_t size) {
  std::string bytes;
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < size; ++i)
    bytes += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

std::string message_of(const std::filesystem::path& path, std::uint64_t max_bytes = 1 << 20) {
  try {
    ArchiveReader reader(path);
    ArchiveEntry entry;
    while (reader.next(entry)) reader.read(max_bytes);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_EQ(error.subject(), path.string());
    return error.message();
  }
  return "read";
}

TEST(ArchiveReader, GivesEntriesInOrder) {
  const TempFolder folder;
  const std::string large = pseudo_random(100'000);
  for (const int filter : {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_XZ,
                           ARCHIVE_FILTER_ZSTD, ARCHIVE_FILTER_BZIP2}) {
    testing::write_tar(folder / "a.tar", {{"./z/", ""}, {"z//b.bin", large}, {"a", ""}}, filter);
    ArchiveReader reader(folder / "a.tar");
    ArchiveEntry entry;
    ASSERT_TRUE(reader.next(entry));
    EXPECT_EQ(entry.path, "z");
    EXPECT_EQ(entry.kind, ArchiveEntryKind::kFolder);
    ASSERT_TRUE(reader.next(entry));
    EXPECT_EQ(entry.path, "z/b.bin");
    EXPECT_EQ(entry.kind, ArchiveEntryKind::kFile);
    EXPECT_EQ(entry.size, large.size());
    EXPECT_EQ(reader.read(1 << 20), large);
    EXPECT_GT(reader.bytes_used(), 0);
    ASSERT_TRUE(reader.next(entry));
    EXPECT_EQ(entry.path, "a");
    EXPECT_EQ(reader.read(0), "");
    EXPECT_FALSE(reader.next(entry));
  }
}

TEST(ArchiveReader, AnEntryMayBePassedOver) {
  const TempFolder folder;
  testing::write_tar(folder / "a.tar", {{"a", "first"}, {"b", "second"}});
  ArchiveReader reader(folder / "a.tar");
  ArchiveEntry entry;
  ASSERT_TRUE(reader.next(entry));
  ASSERT_TRUE(reader.next(entry));
  EXPECT_EQ(reader.read(100), "second");
}

TEST(ArchiveReader, RefusesWhatIsNoArchive) {
  const TempFolder folder;
  EXPECT_EQ(message_of(folder.write("x.tar", "not an archive, but text")),
            "cannot be read as a tar archive: Unrecognized archive format");
  const std::string missing = message_of(folder / "missing.tar");
  EXPECT_EQ(missing, "cannot be read as a tar archive: Failed to open '" +
                         (folder / "missing.tar").string() + "'");
}

TEST(ArchiveReader, RefusesTruncatedArchivesNamingTheEntry) {
  const TempFolder folder;
  const std::string large = pseudo_random(100'000);
  for (const int filter : {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_XZ}) {
    testing::write_tar(folder / "a.tar", {{"cat/1.png", large}}, filter);
    const std::string bytes = read_file(folder / "a.tar");
    folder.write("b.tar", bytes.substr(0, bytes.size() / 2));
    EXPECT_EQ(message_of(folder / "b.tar").rfind("cannot be read as a tar archive", 0), 0u);
    if (filter == ARCHIVE_FILTER_NONE) {
      EXPECT_EQ(message_of(folder / "b.tar"),
                "cannot be read as a tar archive after cat/1.png: Truncated tar archive");
    }
  }
}

TEST(ArchiveReader, RefusesEntriesBeyondTheLimit) {
  const TempFolder folder;
  testing::write_tar(folder / "a.tar", {{"cat/1.png", std::string(2000, 'x')}});
  EXPECT_EQ(message_of(folder / "a.tar", 1024),
            "cat/1.png is larger than the limit of 1.00 KiB for this kind of file");
}

}  // namespace
}  // namespace espalier
