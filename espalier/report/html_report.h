// One self-contained HTML file from plain numbers: headings, text, tables, SVG charts; no script,
// no network. Light and dark, Okabe-Ito colours, prints on A4; each chart's data is also in a table
// and a JSON block. Every text is escaped: model and file names may hold anything. Charts of
// unequal or empty series are drawn as far as they go.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace espalier {

struct ReportTable {
  std::string caption;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>>
      rows;  // numbers are right-aligned when the whole column is numeric
};

struct ReportSeries {
  std::string name;
  std::vector<double> x, y;             // NaN breaks the line
  std::vector<std::string> names = {};  // scatter charts: of the points (may be empty)
  bool joined = false;                  // scatter charts: a line runs through the points
};

struct ReportChart {
  enum class Kind { kLine, kBar, kScatter };
  Kind kind = Kind::kLine;
  std::string title, x_label, y_label;  // labels carry the unit
  std::vector<ReportSeries> series;
  bool log_y = false;
  std::vector<std::string> x_names;  // bar charts: one name per x position (may be empty)
  std::vector<int>
      highlight;  // bar charts: x positions drawn in the accent colour (removed layers)
  std::string highlight_name;  // what they are, for the legend: "removed"
};

struct ReportHeatMap {
  std::string title, x_label, y_label;
  std::vector<std::vector<double>> values;  // NaN is drawn hatched
  double low = 0, high = 1;
  std::vector<int> highlight;  // rows/columns marked on the axes
  std::string highlight_name;  // what they are: "removed"
  /// Indices where a group of a square map begins; a frame is drawn around each group's own block.
  std::vector<int> cuts;
  std::string cuts_name;  // what the groups are, for the legend: "segments"
};

class HtmlReport {
 public:
  explicit HtmlReport(std::string title, std::string subtitle = {});
  void heading(std::string_view text);
  void paragraph(std::string_view text);
  /// Large figures at the top of a section: {"perplexity, dense", "51.7"}.
  void figures(const std::vector<std::pair<std::string, std::string>>& name_and_value);
  void preformatted(std::string_view caption, std::string_view text);
  void table(const ReportTable& table);
  void chart(const ReportChart& chart);
  void heat_map(const ReportHeatMap& map);
  /// Key/value facts at the end: command, seed, versions, hashes.
  void provenance(const std::vector<std::pair<std::string, std::string>>& facts);
  std::string html() const;
  /// Error(kResource) when it cannot be written.
  void write(const std::filesystem::path& path) const;

 private:
  void add_data(std::string_view kind, const std::string& json);
  std::string title_, subtitle_, body_;
  std::vector<std::pair<std::string, std::string>> headings_;  // anchor, text
  std::vector<std::string> data_blocks_;
  int next_id_ = 1;
  std::vector<std::pair<std::string, std::string>> provenance_;
};

/// The SVG of one chart or map alone (a complete document), e.g. for docs.
std::string chart_svg(const ReportChart& chart);
std::string heat_map_svg(const ReportHeatMap& map);

/// A plain-text table for stdout: aligned columns, numbers right-aligned.
std::string text_table(const std::vector<std::string>& columns,
                       const std::vector<std::vector<std::string>>& rows);

}  // namespace espalier
