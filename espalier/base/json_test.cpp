// JSON with positions in errors and bounded nesting.
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

std::string error_of(const std::string& text) {
  try {
    parse_json(text, "a.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    return error.what();
  }
  return "";
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(dump_json(parse_json(R"({"b":1,"a":[true,null],"c":{"z":1.5}})", "x")),
            "{\n  \"b\": 1,\n  \"a\": [\n    true,\n    null\n  ],\n  \"c\": {\n    \"z\": 1.5\n  "
            "}\n}\n");
}

TEST(Json, ErrorsNameLineAndColumn) {
  EXPECT_EQ(error_of("{\n  \"a\": 1,\n  oops\n}").find("a.json:3:3: not valid JSON"), 0u);
  EXPECT_EQ(error_of("").find("a.json:1:1: not valid JSON"), 0u);
  EXPECT_FALSE(error_of("{\"a\": \"\xff\"}").empty());
}

TEST(Json, DeepNestingIsRefusedBeforeParsing) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_NE(error_of(deep).find("nested deeper than 200"), std::string::npos);
  EXPECT_NO_THROW(parse_json(std::string(200, '[') + std::string(200, ']'), "x"));
  // Brackets inside strings do not nest.
  EXPECT_NO_THROW(parse_json("\"" + std::string(1000, '[') + "\\\"\"", "x"));
}

TEST(Json, NonFiniteNumbersBecomeNullAndBadUtf8IsReplaced) {
  Json value;
  value["a"] = std::numeric_limits<double>::quiet_NaN();
  value["b"] = "x\xff";
  EXPECT_EQ(dump_json(value), "{\n  \"a\": null,\n  \"b\": \"x\xef\xbf\xbd\"\n}\n");
}

TEST(Json, FileErrorsNameTheFile) {
  const TempFolder folder;
  const auto path = folder.write("c.json", "{]");
  try {
    read_json_file(path);
    FAIL() << "did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.subject(), path.string() + ":1:2");
  }
  EXPECT_THROW(read_json_file(folder / "none.json"), Error);
  EXPECT_THROW(read_json_file(path, 1), Error);
}

}  // namespace
}  // namespace espalier
