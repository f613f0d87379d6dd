// Error, ProblemList and the assertion macro: texts, kinds, order of context lines.
#include "espalier/base/error.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(Error, PrintsSubjectContextAndHintInOrder) {
  const Error error =
      Error(ErrorKind::kInput, "config.json", "num_hidden_layers is 32, but 24 layers are there")
          .during("checking a")
          .during("loading b")
          .hint("pass --set num_hidden_layers=24");
  EXPECT_EQ(error.to_string(),
            "error: config.json: num_hidden_layers is 32, but 24 layers are there\n"
            "  while: checking a\n"
            "  while: loading b\n"
            "  hint:  pass --set num_hidden_layers=24");
  EXPECT_STREQ(error.what(), "config.json: num_hidden_layers is 32, but 24 layers are there");
}

TEST(Error, WithoutSubjectOrHintHasNoEmptyParts) {
  const Error error(ErrorKind::kUsage, "", "two models given");
  EXPECT_EQ(error.to_string(), "error: two models given");
}

TEST(Error, KindIsTheExitCode) {
  EXPECT_EQ(Error(ErrorKind::kUsage, "", "").exit_code(), 2);
  EXPECT_EQ(Error(ErrorKind::kInput, "", "").exit_code(), 3);
  EXPECT_EQ(Error(ErrorKind::kUnsupported, "", "").exit_code(), 4);
  EXPECT_EQ(Error(ErrorKind::kResource, "", "").exit_code(), 5);
  EXPECT_EQ(Error(ErrorKind::kEnvironment, "", "").exit_code(), 6);
  EXPECT_EQ(Error(ErrorKind::kInternal, "", "").exit_code(), 70);
}

TEST(Error, CallersAddContextOnTheWayUp) {
  try {
    try {
      throw Error(ErrorKind::kInput, "shard", "is short");
    } catch (Error& error) {
      throw std::move(error).during("loading shard 2 of 3");
    }
  } catch (const Error& error) {
    ASSERT_EQ(error.context().size(), 1u);
    EXPECT_EQ(error.context()[0], "loading shard 2 of 3");
  }
}

TEST(ProblemList, EmptyDoesNotThrow) {
  EXPECT_NO_THROW(ProblemList(ErrorKind::kInput, "x").throw_if_any("hint"));
}

TEST(ProblemList, OneProblemIsTheMessage) {
  ProblemList problems(ErrorKind::kInput, "index");
  problems.add("shard 2 is missing");
  try {
    problems.throw_if_any("copy it");
    FAIL() << "did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "shard 2 is missing");
    EXPECT_EQ(error.hint_text(), "copy it");
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
  }
}

TEST(ProblemList, ManyAreListedUpToTheLimit) {
  ProblemList problems(ErrorKind::kUnsupported, "model");
  for (const char* name : {"a", "b", "c"}) problems.add(name);
  try {
    problems.throw_if_any({}, 2);
    FAIL() << "did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "3 problems:\n  - a\n  - b\n  - and 1 more");
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  }
}

TEST(Assertion, IsAnInternalErrorThatNamesFileAndExpression) {
  try {
    ESPALIER_ASSERT(1 + 1 == 3);
    FAIL() << "did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal);
    EXPECT_NE(error.message().find("1 + 1 == 3"), std::string::npos);
    EXPECT_EQ(error.subject().find("espalier/base/error_test.cpp:"), 0u);
    EXPECT_FALSE(error.hint_text().empty());
  }
}

}  // namespace
}  // namespace espalier
