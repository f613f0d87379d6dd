// Each expected value was printed by CPython 3.11.
#include "espalier/eval/tasks/python_text.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(PythonText, StripKnowsUnicodesWhitespace) {
  EXPECT_EQ(python_strip("\xC2\xA0 a b\xE3\x80\x80\x1F\n"), "a b");
  EXPECT_EQ(python_rstrip(" a\xE2\x80\x8B "), " a\xE2\x80\x8B");  // zero width space is none
  EXPECT_EQ(python_strip(" \t"), "");
  EXPECT_EQ(python_strip("\xFF "), "\xFF");  // not UTF-8: no whitespace either
}

TEST(PythonText, CapitalizeLowersTheRest) {
  EXPECT_EQ(python_capitalize("the CAKE"), "The cake");
  EXPECT_EQ(python_capitalize("ÉÀ"), "Éà");
  EXPECT_EQ(python_capitalize("ǆx"), "ǅx");
  EXPECT_EQ(python_capitalize(""), "");
}

TEST(PythonText, LengthsAreCodePointsAndWordsAreSplits) {
  EXPECT_EQ(python_length("aé問😀"), 4);
  EXPECT_EQ(python_word_count(""), 1);
  EXPECT_EQ(python_word_count("a b"), 2);
  EXPECT_EQ(python_word_count(" a \n b "), 4);
}

TEST(PythonText, ReplaceDoesNotLookAtItsOwnWork) {
  EXPECT_EQ(replace_all("a    b", "  ", " "), "a  b");
  EXPECT_EQ(replace_all("aaa", "aa", "a"), "aa");
}

TEST(PythonText, FloatsHaveAPoint) {
  EXPECT_EQ(python_float(-12), "-12.0");
  EXPECT_EQ(python_float(0.1), "0.1");
  EXPECT_EQ(python_float(-1e-07), "-1e-07");
}

}  // namespace
}  // namespace espalier
