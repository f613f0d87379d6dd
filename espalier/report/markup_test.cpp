// Escaping, numbers, widths, axes, terminal tables.
#include <cmath>

#include <gtest/gtest.h>

#include "espalier/report/axis_internal.h"
#include "espalier/report/html_report.h"
#include "espalier/report/markup_internal.h"

namespace espalier::report_internal {
namespace {

std::string texts(const Axis& axis) {
  std::string joined;
  for (const Tick& tick : axis.ticks) joined += tick.text + " ";
  return joined;
}

TEST(Markup, EscapesWhatHtmlAndXmlForbid) {
  EXPECT_EQ(escape("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
  EXPECT_EQ(escape(std::string("a\0b\x1b\x7f", 5)),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(escape("é中😀\n\t"), "é中😀\n\t");
  EXPECT_EQ(escape("\xff\xc0\xaf\xed\xa0\x80"),
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(escape("\xe4\xb8"), "\xef\xbf\xbd\xef\xbf\xbd") << "torn at the end";
  EXPECT_EQ(json_for_html("\"</script><!--\""), "\"\\u003c/script>\\u003c!--\"");
}

TEST(Markup, NumberText) {
  EXPECT_EQ(number_text(51.74), "51.74");
  EXPECT_EQ(number_text(1234567), "1,234,567");
  EXPECT_EQ(number_text(1234.5), "1234.5");
  EXPECT_EQ(number_text(1.2e-5), "1.2e-5");
  EXPECT_EQ(number_text(1e20), "1e20");
  EXPECT_EQ(number_text(-0.25), "-0.25");
  EXPECT_EQ(number_text(std::nan("")), "–");
  EXPECT_EQ(number_text(-INFINITY), "-∞");
  EXPECT_EQ(coordinate(12.0), "12");
  EXPECT_EQ(coordinate(-0.001), "0");
  EXPECT_EQ(coordinate(3.456), "3.46");
}

TEST(Markup, WhichColumnsAreNumbers) {
  for (const char* yes :
       {"1", "-3.5", "1,234", "1.2e-5", "51.7 ± 0.3", "25 %", "nan", "inf", "−4", "∞"}) {
    EXPECT_TRUE(is_number_text(yes)) << yes;
  }
  for (const char* no : {"", "-", "model", "12 GiB", "e5", "1-3 layers", "v1"})
    EXPECT_FALSE(is_number_text(no)) << no;
  EXPECT_TRUE(is_numeric_column({{"1"}, {"–"}, {""}, {}}, 0));
  EXPECT_FALSE(is_numeric_column({{"1"}, {"two"}}, 0));
  EXPECT_FALSE(is_numeric_column({{"–"}, {""}}, 0)) << "no number at all";
}

TEST(Markup, WidthsAndShortening) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("中文é"), 5);
  EXPECT_EQ(display_width("e\u0301"), 1);
  EXPECT_EQ(display_width("😀"), 2);
  EXPECT_EQ(shorten("abcdef", 4), "abc…");
  EXPECT_EQ(shorten("abcd", 4), "abcd");
  EXPECT_EQ(shorten("中文字", 2), "中…");
}

TEST(Axis, NiceLinearTicks) {
  EXPECT_EQ(texts(linear_axis(0, 127.3, 5, true)), "0 50 100 150 ");
  EXPECT_EQ(texts(linear_axis(2.7, 4.9, 5, true)), "2.5 3.0 3.5 4.0 4.5 5.0 ");
  EXPECT_EQ(texts(linear_axis(-1, 1, 5, false)), "-1.0 -0.5 0.0 0.5 1.0 ");
  EXPECT_EQ(texts(linear_axis(0, 3, 8, false, true)), "0 1 2 3 ") << "no half steps";
  EXPECT_EQ(texts(linear_axis(0, 0.0001, 4, true)),
            "0.000000 0.000025 0.000050 0.000075 0.000100 ");
  EXPECT_EQ(texts(linear_axis(0, 3e9, 3, true)), "0 1,000,000,000 2,000,000,000 3,000,000,000 ");
  const Axis one = linear_axis(5, 5, 5, true);
  EXPECT_LT(one.low, 5);
  EXPECT_GT(one.high, 5);
  EXPECT_DOUBLE_EQ(linear_axis(0, 10, 5, true).share(2.5), 0.25);
}

TEST(Axis, HostileRangesStayFinite) {
  for (const auto& [low, high] :
       {std::pair{0.0, 5e-324}, {1e308, 1.7e308}, {-1.7e308, -1.6e308}, {1.0, 1.0 + 1e-16}}) {
    const Axis axis = linear_axis(low, high, 5, true);
    EXPECT_LT(axis.ticks.size(), 1001u);
    for (const Tick& tick : axis.ticks) EXPECT_LT(tick.text.size(), 400u);
  }
}

TEST(Axis, LogTicks) {
  EXPECT_EQ(texts(log_axis(1, 1000)), "1 10 100 1,000 ");
  EXPECT_EQ(texts(log_axis(50, 4000)), "50 100 200 500 1,000 2,000 ");
  EXPECT_EQ(texts(log_axis(70, 150)), "80 100 120 140 ");
  EXPECT_LT(log_axis(1e-30, 1e30).ticks.size(), 12u);
  EXPECT_EQ(texts(log_axis(7, 7)), "6.95 7.00 7.05 ");
  EXPECT_NEAR(log_axis(1, 1000).share(std::sqrt(1000)), 0.5, 1e-12);
}

TEST(TextTable, AlignsAndCleans) {
  EXPECT_EQ(text_table({"layer", "score", "note"},
                       {{"0", "1,234.5", "中"}, {"12", "-3", "a\nb\x1b[31m"}, {"", "–"}}),
            "layer    score  note\n"
            "-----  -------  --------\n"
            "    0  1,234.5  中\n"
            "   12       -3  a b?[31m\n"
            "             –\n");
  EXPECT_EQ(text_table({}, {}), "\n\n");
  EXPECT_EQ(text_table({"a"}, {{"1", "more"}}), "a\n-  ----\n1  more\n");
}

}  // namespace
}  // namespace espalier::report_internal
