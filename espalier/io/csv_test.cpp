// Quoting, line ends, headers; errors name file and line.
#include "espalier/io/csv.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

class CsvTest : public testing::Test {
 protected:
  std::vector<std::string> read(std::string_view bytes, const CsvOptions& options = {}) {
    const auto reader = open_csv(folder_.write("rows.csv", bytes), options);
    std::vector<std::string> rows;
    TableValue row;
    while (reader->next(row)) {
      std::string line = reader->where().substr(reader->where().rfind(':'));
      for (const TableField& field : *row.fields())
        line += "|" + field.name + "=" + *field.value.text();
      rows.push_back(line);
    }
    return rows;
  }
  Error error(std::string_view bytes, const CsvOptions& options = {}) {
    try {
      read(bytes, options);
    } catch (const Error& e) {
      return e;
    }
    return {ErrorKind::kInternal, "nothing", "was thrown"};
  }
  TempFolder folder_;
};

using Rows = std::vector<std::string>;

TEST_F(CsvTest, QuotesHoldSeparatorsLineEndsAndQuotes) {
  EXPECT_EQ(read("\xEF\xBB\xBFq,a\r\n\"x, \"\"y\"\"\nz\",1\r\n\r\n\"\",2"),
            (Rows{":2|q=x, \"y\"\nz|a=1", ":5|q=|a=2"}));
}

TEST_F(CsvTest, NamesCanBeGivenForAFileWithoutAHeader) {
  EXPECT_EQ(read("1,2\n3,4\n", {.columns = {"a", "b"}}), (Rows{":1|a=1|b=2", ":2|a=3|b=4"}));
}

TEST_F(CsvTest, TabsWithoutQuoting) {
  EXPECT_EQ(read("[\"x\"]\t\"y\n", {.columns = {"a", "b"}, .separator = '\t', .quotes = false}),
            (Rows{":1|a=[\"x\"]|b=\"y"}));
}

TEST_F(CsvTest, ErrorsNameTheLine) {
  const Error fields = error("a,b\n1,2\n3\n");
  EXPECT_TRUE(fields.subject().ends_with("rows.csv:3")) << fields.to_string();
  EXPECT_EQ(fields.message(), "the row has 1 fields, expected 2");
  const Error open = error("a,b\n1,\"2\n3,4\n");
  EXPECT_TRUE(open.subject().ends_with("rows.csv:2")) << open.to_string();
  EXPECT_EQ(open.message(), "a quote is opened and never closed");
  EXPECT_EQ(error("a,b\n1,234567890\n", {.max_row_bytes = 8}).message(),
            "the row is longer than 8 B");
  EXPECT_EQ(error("").message(), "is empty, expected rows of data");
  EXPECT_EQ(error("\n\n").kind(), ErrorKind::kInput);
}

}  // namespace
}  // namespace espalier
