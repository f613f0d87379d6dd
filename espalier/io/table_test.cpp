// The same rows from JSON Lines, compressed lines, and an array; errors name file, line and column;
// hostile files end in an Error soon and in little memory.
#include "espalier/io/table.h"

#include <fstream>

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/io/jsonl.h"
#include "espalier/io/parquet.h"
#include "espalier/io/testing_internal.h"

namespace espalier {
namespace {

constexpr std::string_view kLines =
    "{\"text\": \"one\", \"n\": 1}\n\n{\"text\": \"zw\\u00f6\", \"list\": [true, null, 2.5]}\r\n"
    "{\"text\": \"three\", \"deep\": {\"a\": [{\"b\": \"c\"}]}}";
constexpr std::string_view kArray =
    "\xEF\xBB\xBF\n [\n  {\"text\": \"one\", \"n\": 1},\n  {\"text\": \"zw\\u00f6\",\n   \"list\": "
    "[true, null, 2.5]}\n  ,{\"text\": \"three\", \"deep\": {\"a\": [{\"b\": \"c\"}]}}\n]\n\n";

std::string long_text(std::string_view head, char letter, std::size_t count,
                      std::string_view tail) {
  std::string text(head);
  text.append(count, letter);
  return text.append(tail);
}

std::string gzipped(std::string_view text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(compressBound(static_cast<uLong>(text.size())) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd_packed(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

class TableTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, std::string_view bytes) {
    return folder_.write(name, bytes);
  }
  Error error_reading(const std::string& name, std::string_view bytes) {
    const auto file = write(name, bytes);
    return error_of([&] {
      const auto table = open_table(file);
      TableValue row;
      while (table->next(row)) {
      }
    });
  }
  TempFolder folder_;
};

void expect_the_three_rows(TableReader& table, const std::string& source) {
  SCOPED_TRACE(source);
  TableValue row;
  ASSERT_TRUE(table.next(row));
  ASSERT_NE(row.find("text"), nullptr);
  EXPECT_EQ(*row.find("text")->text(), "one");
  EXPECT_EQ(std::get<std::int64_t>(row.find("n")->data), 1);
  EXPECT_EQ(row.find("list"), nullptr);
  ASSERT_TRUE(table.next(row));
  EXPECT_EQ(*row.find("text")->text(), "zw\xC3\xB6");
  const TableValue::List& list = *row.find("list")->list();
  ASSERT_EQ(list.size(), 3u);
  EXPECT_TRUE(std::get<bool>(list[0].data));
  EXPECT_TRUE(list[1].is_null());
  EXPECT_EQ(std::get<double>(list[2].data), 2.5);
  ASSERT_TRUE(table.next(row));
  EXPECT_EQ(*(*row.find("deep")->find("a")->list())[0].find("b")->text(), "c");
  EXPECT_EQ(row.find("deep")->type_name(), "an object");
  EXPECT_FALSE(table.next(row));
  EXPECT_FALSE(table.next(row));
}

TEST_F(TableTest, EveryFormGivesTheSameRows) {
  const auto lines = open_table(write("rows.jsonl", kLines));
  expect_the_three_rows(*lines, "lines");
  EXPECT_EQ(lines->where(), (folder_.path() / "rows.jsonl").string() + ":4");
  EXPECT_EQ(lines->bytes_read(), lines->bytes_total());
  const auto array = open_table(write("rows.json", kArray));
  expect_the_three_rows(*array, "array");
  EXPECT_EQ(array->where(), (folder_.path() / "rows.json").string() + ":6");
  expect_the_three_rows(*open_table(write("a.jsonl.gz", gzipped(kLines))), "gzip");
  expect_the_three_rows(*open_table(write("a.jsonl.zst", zstd_packed(kLines))), "zstd");
  expect_the_three_rows(*open_table(write("a.json.zst", zstd_packed(kArray))), "array in zstd");
  // Compression is seen, not believed; members and frames one after the other are one text.
  const std::string_view head = kLines.substr(0, 30), tail = kLines.substr(30);
  expect_the_three_rows(*open_table(write("b.jsonl", gzipped(head) + gzipped(tail))), "members");
  expect_the_three_rows(*open_table(write("c.jsonl", zstd_packed(head) + zstd_packed(tail))),
                        "frames");
}

TEST_F(TableTest, RowsLargerThanTheBufferArriveWhole) {
  std::string text;
  for (int i = 0; i < 3; ++i)
    text.append("{\"text\": \"").append(200'000, static_cast<char>('a' + i)).append("\"}\n");
  for (const std::string& bytes : {text, gzipped(text), zstd_packed(text)}) {
    const auto table = open_table(write("long.jsonl", bytes));
    TableValue row;
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(table->next(row));
      EXPECT_EQ(*row.find("text")->text(), std::string(200'000, static_cast<char>('a' + i)));
    }
    EXPECT_FALSE(table->next(row));
  }
}

TEST_F(TableTest, ErrorsNameFileLineAndColumn) {
  const Error broken = error_reading("x.jsonl", "{\"a\": 1}\n\n{\"a\": }\n");
  EXPECT_EQ(broken.kind(), ErrorKind::kInput);
  EXPECT_EQ(broken.subject(), (folder_.path() / "x.jsonl").string() + ":3:7");
  EXPECT_TRUE(contains(broken.message(), "not valid JSON"));
  const Error inside = error_reading("x.json", "[{\"a\": 1},\n {\"a\":\n  oops}]");
  EXPECT_EQ(inside.subject(), (folder_.path() / "x.json").string() + ":3:3");
  const Error scalar = error_reading("x.jsonl", "{}\n\"text\"\n");
  EXPECT_EQ(scalar.subject(), (folder_.path() / "x.jsonl").string() + ":2");
  EXPECT_TRUE(contains(scalar.message(), "the row is text, expected an object"));
  const Error second = error_reading("x.json", "[{}, [1]]");
  EXPECT_TRUE(contains(second.message(), "the row is a list"));
}

TEST_F(TableTest, DamagedAndTruncatedFilesAreRefused) {
  EXPECT_TRUE(contains(error_reading("x.jsonl", "").message(), "is empty"));
  EXPECT_TRUE(contains(error_reading("x.jsonl", " \n\n").message(), "is empty"));
  EXPECT_TRUE(contains(error_reading("x.json", "[{\"a\": [1, 2}").message(), "inside the array"));
  EXPECT_TRUE(contains(error_reading("x.json", "[{}] {}").message(), "after the end of the array"));
  EXPECT_TRUE(contains(error_reading("x.json", "[{},]").message(), "not valid JSON"));
  EXPECT_TRUE(contains(error_reading("x.jsonl", "\xEF\xBB{}").message(), "byte order mark"));
  EXPECT_TRUE(contains(error_reading("x.jsonl", "{\"a\": \"\xFF\"}").message(), "not valid JSON"));
  const Error missing = error_of([&] { open_table(folder_.path() / "none.jsonl"); });
  EXPECT_EQ(missing.kind(), ErrorKind::kInput);
  EXPECT_TRUE(contains(error_of([&] { open_table(folder_.path()); }).message(), "folder"));
  for (const std::string& packed : {gzipped(kLines), zstd_packed(kLines)}) {
    for (std::size_t size = 5; size < packed.size(); ++size) {
      const Error error = error_reading("x.jsonl", packed.substr(0, size));
      EXPECT_EQ(error.kind(), ErrorKind::kInput) << size;
    }
    std::string damaged = packed;
    for (std::size_t i = packed.size() / 2; i < packed.size() / 2 + 4; ++i) damaged[i] ^= 0x55;
    EXPECT_EQ(error_reading("x.jsonl", damaged).kind(), ErrorKind::kInput);
  }
}

TEST_F(TableTest, ARowWithoutEndDoesNotFillTheMemory) {
  const auto file = write("x.jsonl", long_text("{\"a\": \"", 'x', 5000, "\"}\n"));
  TableValue row;
  const Error line = error_of([&] { open_jsonl(file, 4096)->next(row); });
  EXPECT_TRUE(contains(line.message(), "the row is longer than 4.00 KiB"));
  EXPECT_FALSE(line.hint_text().empty());
  const auto array = write("x.json", long_text("[{\"a\": [", '[', 5000, "\n"));
  EXPECT_TRUE(contains(error_of([&] { open_jsonl(array, 4096)->next(row); }).message(),
                       "the row is longer than"));
  // 20 MB of blanks in a few kB: the row they end in is what counts.
  const std::string bomb = zstd_packed(long_text("", ' ', 20u << 20, "{"));
  EXPECT_TRUE(contains(error_reading("bomb.jsonl.zst", bomb).message(), "not valid JSON"));
  const std::string deep = long_text("{\"a\": ", '[', 100'000, "}");
  EXPECT_TRUE(contains(error_reading("deep.jsonl", deep).message(), "nested deeper"));
}

TEST_F(TableTest, EveryCutOfAnArrayIsAnErrorOrTheWhole) {
  for (std::size_t size = 6; size < kArray.size() - 3; ++size)
    EXPECT_EQ(error_reading("cut.json", kArray.substr(0, size)).kind(), ErrorKind::kInput) << size;
}

TEST(TableFiles, AreKnownByName) {
  for (const char* name :
       {"a.jsonl", "a.ndjson", "b.json", "b.json.gz", "c.jsonl.zst", "d.parquet"})
    EXPECT_TRUE(is_table_file(name)) << name;
  for (const char* name : {"a.txt", "json", "a.gz", "a.txt.zst", "a.jsonl.bak"})
    EXPECT_FALSE(is_table_file(name)) << name;
}

TEST_F(TableTest, ParquetWithoutArrowSaysHowToGetIt) {
  if (!arrow_version().empty()) GTEST_SKIP() << "built with Arrow " << arrow_version();
  const auto file = write("x.parquet", "PAR1PAR1");
  const Error error = error_of([&] { open_table(file); });
  EXPECT_EQ(error.kind(), ErrorKind::kEnvironment);
  EXPECT_TRUE(contains(error.message(), "built without Arrow"));
  EXPECT_EQ(error.hint_text(), "build with make ARROW=1, or convert the file to JSON Lines");
}

TEST_F(TableTest, ParquetGivesTheSameRowsAndRefusesBrokenFiles) {
  if (arrow_version().empty()) GTEST_SKIP() << "built without Arrow (make ARROW=1)";
  const std::filesystem::path fixture =
      std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier/io/testdata/rows.parquet";
  const auto table = open_table(fixture);
  TableValue row;
  ASSERT_TRUE(table->next(row));
  EXPECT_EQ(*row.find("text")->text(), "one");
  EXPECT_EQ(std::get<std::int64_t>(row.find("n")->data), 1);
  EXPECT_TRUE(row.find("messages")->is_null());
  ASSERT_TRUE(table->next(row));
  EXPECT_EQ(*row.find("text")->text(), "zw\xC3\xB6");
  const TableValue::List& messages = *row.find("messages")->list();
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(*messages[1].find("role")->text(), "assistant");
  EXPECT_EQ(*messages[1].find("content")->text(), "Yes.");
  EXPECT_EQ(*row.find("label")->text(), "b");  // a dictionary column
  EXPECT_EQ(std::get<double>(row.find("score")->data), 0.5);
  EXPECT_FALSE(table->next(row));
  EXPECT_EQ(table->where(), fixture.string() + ": row 2");

  std::ifstream in(fixture, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  for (std::size_t size = 4; size < bytes.size(); size += 97) {
    const Error error = error_reading("cut.parquet", bytes.substr(0, size));
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << size;
  }
}

}  // namespace
}  // namespace espalier
