// The page and its drawings: well-formed, escaped, self-contained, complete data.
#ifdef __SANITIZE_ADDRESS__
// GCC 12 takes std::regex for uninitialized when it is instrumented (GCC bug 105562).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "espalier/report/html_report.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier {
namespace {

constexpr const char* kHostile =
    "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>&\x01";

/// Nesting of tags as XML wants it; "" when well-formed, else what is wrong. Void HTML elements are
/// known.
std::string nesting_problem(const std::string& text) {
  static const std::set<std::string> kVoid{"meta", "!doctype", "?xml", "br"};
  std::vector<std::string> open;
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const std::size_t end = text.find('>', at);
    if (end == std::string::npos) return "a tag does not end";
    const std::string tag = text.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return "< inside a tag: " + tag;
    if (tag.ends_with('/')) continue;
    const std::string name = tag.substr(0, tag.find_first_of(" \n>"));
    if (name.starts_with('/')) {
      if (open.empty() || open.back() != name.substr(1)) return "unexpected " + name;
      open.pop_back();
    } else if (!kVoid.contains(name)) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "left open: " + open.back();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::vector<Json> data_blocks(const std::string& html) {
  std::vector<Json> blocks;
  for (std::size_t at = html.find("<script "); at != std::string::npos;
       at = html.find("<script ", at + 1)) {
    const std::size_t begin = html.find('>', at) + 1;
    blocks.push_back(parse_json(html.substr(begin, html.find('<', begin) - begin), "block"));
  }
  return blocks;
}

ReportChart line_chart() {
  ReportChart chart;
  chart.title = "Loss";
  chart.x_label = "step";
  chart.y_label = "loss, nats";
  chart.series = {{"a", {0, 1, 2, 3}, {4, 3, NAN, 2}}, {"b", {0, 3}, {5, 1}}};
  return chart;
}

ReportChart bar_chart() {
  ReportChart chart;
  chart.kind = ReportChart::Kind::kBar;
  chart.title = "Scores";
  chart.series = {{"bi", {}, {0.5, 0.1, 0.2, 0.9}}};
  chart.highlight = {1, 2};
  chart.highlight_name = "removed";
  return chart;
}

ReportChart scatter_chart() {
  ReportChart chart;
  chart.kind = ReportChart::Kind::kScatter;
  chart.title = "Cells";
  chart.x_label = "redundancy";
  chart.y_label = "accuracy";
  chart.series = {{"all", {0.1, 0.5, NAN}, {0.7, 0.9, 0.8}, {"one", "two", "three"}},
                  {"front", {0.1, 0.5}, {0.7, 0.9}, {}, true}};
  return chart;
}

ReportHeatMap heat_map() {
  ReportHeatMap map;
  map.title = "CKA";
  map.x_label = "layer", map.y_label = "layer";
  map.values = {{1, 0.5}, {0.5, NAN}};
  map.highlight = {1, 7};
  map.highlight_name = "removed";
  return map;
}

TEST(HtmlReport, EveryTextIsEscaped) {
  HtmlReport report(kHostile, kHostile);
  report.heading(kHostile);
  report.paragraph(kHostile);
  report.figures({{kHostile, kHostile}});
  report.preformatted(kHostile, kHostile);
  report.table({kHostile, {kHostile}, {{kHostile, kHostile}}});
  ReportChart chart = line_chart();
  chart.title = chart.x_label = chart.y_label = chart.series[0].name = kHostile;
  report.chart(chart);
  ReportChart bars = bar_chart();
  bars.x_names = {kHostile, kHostile, "x", "y"};
  bars.highlight_name = kHostile;
  report.chart(bars);
  ReportHeatMap map = heat_map();
  map.cuts = {1};
  map.title = map.x_label = map.y_label = map.highlight_name = map.cuts_name = kHostile;
  report.heat_map(map);
  report.provenance({{kHostile, kHostile}});
  const std::string html = report.html();
  EXPECT_EQ(html.find("<script>"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find('\x01'), std::string::npos);
  EXPECT_EQ(nesting_problem(html), "");
  EXPECT_EQ(count(html, "<script "), 4u) << "data blocks only";
  for (const Json& block : data_blocks(html)) EXPECT_TRUE(block.is_object());
  EXPECT_EQ(data_blocks(html)[1]["title"], kHostile) << "data is not changed by escaping";
}

TEST(HtmlReport, IsSelfContainedAndWithoutScript) {
  HtmlReport report("t");
  report.chart(line_chart());
  report.heat_map(heat_map());
  const std::string html = report.html();
  EXPECT_EQ(nesting_problem(html), "");
  for (const char* forbidden :
       {"src=", "http:", "https:", "url(http", "@import", "<link", "javascript:", "onload"}) {
    EXPECT_EQ(html.find(forbidden), std::string::npos) << forbidden;
  }
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(html.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_NE(html.find("@page{size:A4"), std::string::npos);
  EXPECT_EQ(count(html, "role=\"img\""), 2u);
  EXPECT_EQ(count(html, "<details>"), 2u);
  EXPECT_EQ(html, report.html()) << "deterministic";
}

TEST(HtmlReport, IdsAreUnique) {
  HtmlReport report("t");
  for (int i = 0; i < 5; ++i) {
    report.heading("same");
    report.chart(line_chart());
    report.heat_map(heat_map());
  }
  const std::string html = report.html();
  std::set<std::string> seen;
  const std::regex id(" id=\"([^\"]*)\"");
  for (std::sregex_iterator it(html.begin(), html.end(), id), end; it != end; ++it) {
    EXPECT_TRUE(seen.insert((*it)[1].str()).second) << (*it)[1];
  }
  EXPECT_EQ(count(html, "<nav"), 1u) << "five sections get a table of contents";
  EXPECT_NE(html.find("<a href=\"#s5\">same</a>"), std::string::npos);
}

TEST(HtmlReport, ScatterHasAPointPerPairAndALineWhereAsked) {
  HtmlReport report("t");
  report.chart(scatter_chart());
  const std::string html = report.html();
  EXPECT_EQ(nesting_problem(html), "");
  // Four points that have a place and the legend's one for the series without a line.
  EXPECT_EQ(count(html, "<circle "), 5u);
  const std::string svg = chart_svg(scatter_chart());
  EXPECT_EQ(count(svg, "<path "), 1u);
  EXPECT_NE(svg.find("class=\"curve s1\"/>"), std::string::npos);
  EXPECT_LT(svg.find("<path "), svg.find("<title>one: 0.7 at 0.1</title>"))
      << "lines lie below points";
  EXPECT_NE(html.find("<td>all</td><td>two</td><td class=\"n\">0.5</td><td class=\"n\">0.9</td>"),
            std::string::npos);
  const Json block = data_blocks(html)[0];
  EXPECT_EQ(block["kind"], "scatter");
  EXPECT_EQ(block["series"][0]["names"].dump(), R"(["one","two","three"])");
  EXPECT_NE(svg.find("Scatter chart over redundancy"), std::string::npos);
  ReportChart empty = scatter_chart();
  empty.series.clear();
  EXPECT_EQ(nesting_problem(chart_svg(empty)), "");
}

TEST(HtmlReport, ChartDataIsInATableAndInJson) {
  HtmlReport report("t");
  report.chart(line_chart());
  report.chart(bar_chart());
  report.heat_map(heat_map());
  const std::string html = report.html();
  EXPECT_NE(html.find("<tr><td class=\"n\">1</td><td class=\"n\">3</td><td class=\"n\"></td></tr>"),
            std::string::npos);
  EXPECT_NE(
      html.find("<tr><td class=\"n\">3</td><td class=\"n\">2</td><td class=\"n\">1</td></tr>"),
      std::string::npos);
  EXPECT_NE(html.find("<td class=\"n\">0.1</td><td>yes</td>"), std::string::npos);
  const auto blocks = data_blocks(html);
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[0]["series"][0]["y"].dump(), "[4.0,3.0,null,2.0]");
  EXPECT_EQ(blocks[1]["highlight"].dump(), "[1,2]");
  EXPECT_EQ(blocks[2]["values"].dump(), "[[1.0,0.5],[0.5,null]]");
}

TEST(HtmlReport, NumericColumnsAreRightAligned) {
  HtmlReport report("t");
  report.table({"c", {"name", "value"}, {{"a", "1.5"}, {"b", "–"}}});
  const std::string html = report.html();
  EXPECT_NE(html.find("<td>a</td><td class=\"n\">1.5</td>"), std::string::npos);
  EXPECT_NE(html.find("<th scope=\"col\" class=\"n\">value</th>"), std::string::npos);
}

TEST(HtmlReport, LongDataIsThinnedInTheTableOnly) {
  ReportChart chart;
  chart.series = {{"loss", {}, {}}};
  for (int i = 0; i < 20'000; ++i) {
    chart.series[0].x.push_back(i);
    chart.series[0].y.push_back(2 + std::sin(i));
  }
  HtmlReport report("t");
  report.chart(chart);
  const std::string html = report.html();
  EXPECT_LE(count(html, "<tr>"), 403u);
  EXPECT_NE(html.find("of 20000 rows"), std::string::npos);
  EXPECT_EQ(data_blocks(html)[0]["series"][0]["y"].size(), 20'000u);
  EXPECT_LT(chart_svg(chart).size(), 100'000u) << "points in one pixel column are merged";
}

TEST(HtmlReport, WritesWholeFilesOrFails) {
  const auto folder =
      std::filesystem::temp_directory_path() / format("espalier_report_{}", ::getpid());
  std::filesystem::create_directories(folder);
  HtmlReport report("t");
  report.write(folder / "r.html");
  std::ifstream file(folder / "r.html");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), report.html());
  try {
    report.write(folder / "missing" / "r.html");
    ADD_FAILURE() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kResource);
  }
  std::filesystem::remove_all(folder);
}

TEST(ChartSvg, LinesBreakAtNanAndStayInTheFrame) {
  const std::string svg = chart_svg(line_chart());
  EXPECT_EQ(nesting_problem(svg), "");
  const std::regex path("<path d=\"([^\"]*)\" class=\"curve s0\"");
  std::smatch match;
  ASSERT_TRUE(std::regex_search(svg, match, path));
  EXPECT_EQ(count(match[1].str(), "M"), 2u) << "a gap starts a new run";
  EXPECT_EQ(count(svg, "<circle"), 5u);
  EXPECT_NE(svg.find("<desc id=\"chart-desc\">Line chart over step; vertical axis: loss, nats. a: "
                     "4 values from 2 to 4"),
            std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(ChartSvg, BarHeightsAreProportional) {
  const std::string svg = chart_svg(bar_chart());
  EXPECT_EQ(nesting_problem(svg), "");
  std::vector<double> heights;
  const std::regex bar("height=\"([0-9.]+)\" class=\"(?:f0|high)\"[^>]*><title>");
  for (std::sregex_iterator it(svg.begin(), svg.end(), bar), end; it != end; ++it) {
    heights.push_back(std::atof((*it)[1].str().c_str()));
  }
  ASSERT_EQ(heights.size(), 4u);
  EXPECT_NEAR(heights[0] / heights[3], 0.5 / 0.9, 1e-3);
  EXPECT_NEAR(heights[1] / heights[3], 0.1 / 0.9, 1e-3);
  EXPECT_EQ(count(svg, "class=\"high\" rx=\"1.5\"><title>"), 2u);
  EXPECT_NE(svg.find(">removed</text>"), std::string::npos);
}

TEST(ChartSvg, NegativeBarsHangFromZero) {
  ReportChart chart;
  chart.kind = ReportChart::Kind::kBar;
  chart.series = {{"delta", {}, {1, -1}}};
  const std::string svg = chart_svg(chart);
  const std::regex bar("y=\"([0-9.]+)\" width=\"[0-9.]+\" height=\"([0-9.]+)\" class=\"f0\"");
  std::vector<std::pair<double, double>> bars;
  for (std::sregex_iterator it(svg.begin(), svg.end(), bar), end; it != end; ++it) {
    bars.emplace_back(std::atof((*it)[1].str().c_str()), std::atof((*it)[2].str().c_str()));
  }
  ASSERT_EQ(bars.size(), 2u);
  EXPECT_NEAR(bars[0].first + bars[0].second, bars[1].first, 0.02);
  EXPECT_NEAR(bars[0].second, bars[1].second, 0.02);
}

TEST(ChartSvg, NoisySeriesGetAMeanAndSaySo) {
  ReportChart noisy;
  noisy.series = {{"loss", {}, {}}};
  ReportChart smooth = noisy;
  for (int i = 0; i < 1000; ++i) {
    noisy.series[0].x.push_back(i), smooth.series[0].x.push_back(i);
    noisy.series[0].y.push_back(3 + std::exp(-i / 200.0) + (i % 2 == 0 ? 0.2 : -0.2));
    smooth.series[0].y.push_back(3 + std::exp(-i / 200.0));
  }
  EXPECT_NE(chart_svg(noisy).find("bold: mean of 21 neighbours"), std::string::npos);
  EXPECT_NE(chart_svg(noisy).find("class=\"curve s0 raw\""), std::string::npos);
  EXPECT_EQ(chart_svg(smooth).find("neighbours"), std::string::npos);
}

TEST(ChartSvg, DegenerateInputIsDrawn) {
  for (const auto kind : {ReportChart::Kind::kLine, ReportChart::Kind::kBar}) {
    for (const bool log_y : {false, true}) {
      ReportChart chart;
      chart.kind = kind;
      chart.log_y = log_y;
      EXPECT_EQ(nesting_problem(chart_svg(chart)), "");
      chart.series = {{"", {}, {}}};
      EXPECT_EQ(nesting_problem(chart_svg(chart)), "");
      chart.series = {{"a", {1, 2}, {NAN, INFINITY}}, {"b", {1}, {0, 1, 2}}, {"c", {5}, {-1}}};
      chart.highlight = {-1, 99};
      chart.x_names = {""};
      const std::string svg = chart_svg(chart);
      EXPECT_EQ(nesting_problem(svg), "");
      EXPECT_EQ(svg.find("=\"nan"), std::string::npos);
      EXPECT_EQ(svg.find("=\"-nan"), std::string::npos);
      EXPECT_EQ(svg.find("=\"inf"), std::string::npos);
    }
  }
}

TEST(HeatMapSvg, CellsScaleAndGaps) {
  const std::string svg = heat_map_svg(heat_map());
  EXPECT_EQ(nesting_problem(svg), "");
  EXPECT_NE(svg.find("fill=\"#fde725\"><title>0, 0: 1</title>"), std::string::npos);
  EXPECT_EQ(count(svg, "fill=\"#21918c\"><title>"), 2u);
  EXPECT_EQ(count(svg, "fill=\"url(#map-gap)\"><title>1, 1: –</title>"), 1u);
  EXPECT_EQ(count(svg, "class=\"high\""), 3u) << "row 1, column 1, legend; 7 is outside";
  EXPECT_NE(svg.find("1 cells without a value are hatched"), std::string::npos);
}

TEST(HeatMapSvg, GroupsAreFramedOnTheDiagonal) {
  ReportHeatMap map;
  map.values = std::vector<std::vector<double>>(5, std::vector<double>(5, 0.5));
  map.cuts = {2, 4, 9};  // 9 is outside
  map.cuts_name = "segments";
  const std::string svg = heat_map_svg(map);
  EXPECT_EQ(nesting_problem(svg), "");
  EXPECT_EQ(count(svg, "class=\"group\""), 4u) << "0-1, 2-3, 4, legend";
  // Cells of 44: the second block is 88 wide.
  EXPECT_EQ(count(svg, "width=\"88\" height=\"88\" class=\"group\""), 2u);
}

TEST(HeatMapSvg, DegenerateInputIsDrawn) {
  for (const std::vector<std::vector<double>>& values : {std::vector<std::vector<double>>{},
                                                         {{}},
                                                         {{NAN}},
                                                         {{3}},
                                                         {{1, 2, 3}, {4}},
                                                         {{INFINITY, -INFINITY}}}) {
    ReportHeatMap map;
    map.values = values;
    map.low = map.high = 0;
    const std::string svg = heat_map_svg(map);
    EXPECT_EQ(nesting_problem(svg), "");
    EXPECT_EQ(svg.find("=\"nan"), std::string::npos);
    EXPECT_EQ(svg.find("=\"inf"), std::string::npos);
  }
}

TEST(ScaleColor, StopsAndClamping) {
  using report_internal::scale_color;
  EXPECT_EQ(scale_color(0).hex, "#440154");
  EXPECT_EQ(scale_color(-5).hex, "#440154");
  EXPECT_EQ(scale_color(1).hex, "#fde725");
  EXPECT_EQ(scale_color(0.5).hex, "#21918c");
  EXPECT_EQ(scale_color(0.05).hex, "#461365") << "halfway between two stops";
  EXPECT_FALSE(scale_color(0.2).is_light);
  EXPECT_TRUE(scale_color(0.9).is_light);
}

}  // namespace
}  // namespace espalier
