// The page around the charts: structure, tables, data blocks.
#include "espalier/report/html_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/report/chart_frame_internal.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/page_style_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier {

using namespace report_internal;

namespace {

constexpr std::size_t kMaxTableRows = 400;  // of a chart's data; the JSON block has all

std::string table_markup(const ReportTable& table) {
  constexpr std::size_t kShort = 24;  // rows that stay together on paper
  std::string html = table.rows.size() <= kShort ? "<div class=\"scroll short\"><table>"
                                                 : "<div class=\"scroll\"><table>";
  if (!table.caption.empty()) html += "<caption>" + escape(table.caption) + "</caption>";
  std::size_t count = table.columns.size();
  for (const auto& row : table.rows) count = std::max(count, row.size());
  std::vector<std::string> cell_class(count);
  for (std::size_t c = 0; c < count; ++c) {
    if (is_numeric_column(table.rows, c)) cell_class[c] = " class=\"n\"";
  }
  if (!table.columns.empty()) {
    html += "<thead><tr>";
    for (std::size_t c = 0; c < count; ++c) {
      html += "<th scope=\"col\"" + cell_class[c] + ">" +
              (c < table.columns.size() ? escape(table.columns[c]) : "") + "</th>";
    }
    html += "</tr></thead>";
  }
  html += "<tbody>";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (std::size_t c = 0; c < count; ++c) {
      html += "<td" + cell_class[c] + ">" + (c < row.size() ? escape(row[c]) : "") + "</td>";
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>\n";
}

Json numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values)
    list.push_back(std::isfinite(value) ? Json(value) : Json(nullptr));
  return list;
}

std::string compact(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json chart_json(const ReportChart& chart) {
  Json json = Json::object();
  json["kind"] = chart.kind == ReportChart::Kind::kLine  ? "line"
                 : chart.kind == ReportChart::Kind::kBar ? "bar"
                                                         : "scatter";
  json["title"] = chart.title;
  json["x_label"] = chart.x_label;
  json["y_label"] = chart.y_label;
  if (!chart.x_names.empty()) json["x_names"] = chart.x_names;
  if (!chart.highlight.empty()) json["highlight"] = chart.highlight;
  json["series"] = Json::array();
  for (const ReportSeries& series : chart.series) {
    Json entry = Json::object();
    entry["name"] = series.name;
    if (!series.x.empty()) entry["x"] = numbers(series.x);
    entry["y"] = numbers(series.y);
    if (!series.names.empty()) entry["names"] = series.names;
    json["series"].push_back(std::move(entry));
  }
  return json;
}

Json heat_map_json(const ReportHeatMap& map) {
  Json json = Json::object();
  json["kind"] = "heat_map";
  json["title"] = map.title;
  json["x_label"] = map.x_label;
  json["y_label"] = map.y_label;
  if (!map.highlight.empty()) json["highlight"] = map.highlight;
  if (!map.cuts.empty()) json["cuts"] = map.cuts;
  json["values"] = Json::array();
  for (const auto& row : map.values) json["values"].push_back(numbers(row));
  return json;
}

/// Every k-th row and the last one, so that at most kMaxTableRows are shown.
template <class Row>
std::string thin_out(std::vector<Row>& rows) {
  if (rows.size() <= kMaxTableRows) return {};
  const std::size_t step = (rows.size() + kMaxTableRows - 1) / kMaxTableRows;
  const std::size_t total = rows.size();
  std::vector<Row> kept;
  for (std::size_t i = 0; i < total; ++i) {
    if (i % step == 0 || i + 1 == total) kept.push_back(std::move(rows[i]));
  }
  rows = std::move(kept);
  return format("{} of {} rows; all are in the JSON block at the end of this file", rows.size(),
                total);
}

/// One row per point, series after series.
ReportTable scatter_table(const ReportChart& chart) {
  ReportTable table;
  table.columns = {"series", "point", chart.x_label.empty() ? "x" : chart.x_label,
                   chart.y_label.empty() ? "y" : chart.y_label};
  for (const ReportSeries& series : chart.series) {
    for (std::size_t i = 0; i < points_of(series, chart.kind); ++i) {
      table.rows.push_back({series.name, i < series.names.size() ? series.names[i] : "",
                            number_text(series.x[i]), number_text(series.y[i])});
    }
  }
  table.caption = thin_out(table.rows);
  return table;
}

/// x down, one column per series.
ReportTable chart_table(const ReportChart& chart) {
  if (chart.kind == ReportChart::Kind::kScatter) return scatter_table(chart);
  ReportTable table;
  table.columns.push_back(chart.x_label.empty() ? "x" : chart.x_label);
  const bool bar = chart.kind == ReportChart::Kind::kBar;
  std::map<double, std::vector<std::string>> rows;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const ReportSeries& series = chart.series[s];
    table.columns.push_back(series.name);
    for (std::size_t i = 0; i < series.y.size(); ++i) {
      if (!bar && i >= series.x.size()) break;
      const double key = bar ? static_cast<double>(i) : series.x[i];
      if (std::isnan(key)) continue;
      auto& row = rows[key];
      row.resize(chart.series.size() + 1);
      if (bar && i < chart.x_names.size()) {
        row[0] = chart.x_names[i];
      } else {
        row[0] = number_text(bar && i < series.x.size() ? series.x[i] : key);
      }
      row[s + 1] = number_text(series.y[i]);
    }
  }
  const std::set<int> marked(chart.highlight.begin(), chart.highlight.end());
  if (!marked.empty())
    table.columns.push_back(chart.highlight_name.empty() ? "highlighted" : chart.highlight_name);
  int index = 0;
  for (auto& [key, row] : rows) {
    if (!marked.empty()) row.push_back(marked.contains(index) ? "yes" : "");
    table.rows.push_back(std::move(row));
    ++index;
  }
  table.caption = thin_out(table.rows);
  return table;
}

ReportTable heat_map_table(const ReportHeatMap& map) {
  ReportTable table;
  std::size_t count = 0;
  for (const auto& row : map.values) count = std::max(count, row.size());
  table.columns.emplace_back();
  for (std::size_t c = 0; c < count; ++c) table.columns.push_back(std::to_string(c));
  for (std::size_t r = 0; r < map.values.size(); ++r) {
    std::vector<std::string> cells{std::to_string(r)};
    for (const double value : map.values[r])
      cells.push_back(std::isnan(value) ? "–" : format("{:.3f}", value));
    table.rows.push_back(std::move(cells));
  }
  table.caption = thin_out(table.rows);
  return table;
}

std::string figure_markup(std::string_view title, const std::string& svg, const ReportTable& data,
                          std::string_view kind) {
  return format(
      "<figure class=\"{}\"><figcaption>{}</figcaption><div class=\"drawing\">{}</div>"
      "<details><summary>Data as a table</summary>{}</details></figure>\n",
      kind, escape(title), svg, table_markup(data));
}

}  // namespace

HtmlReport::HtmlReport(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void HtmlReport::heading(std::string_view text) {
  const std::string anchor = format("s{}", headings_.size() + 1);
  headings_.emplace_back(anchor, text);
  body_ += format("<h2 id=\"{}\">{}</h2>\n", anchor, escape(text));
}

void HtmlReport::paragraph(std::string_view text) { body_ += "<p>" + escape(text) + "</p>\n"; }

void HtmlReport::figures(const std::vector<std::pair<std::string, std::string>>& name_and_value) {
  if (name_and_value.empty()) return;
  body_ += "<dl class=\"figures\">";
  for (const auto& [name, value] : name_and_value) {
    body_ += "<div><dt>" + escape(name) + "</dt><dd>" + escape(value) + "</dd></div>";
  }
  body_ += "</dl>\n";
}

void HtmlReport::preformatted(std::string_view caption, std::string_view text) {
  body_ += "<figure class=\"text\">";
  if (!caption.empty()) body_ += "<figcaption>" + escape(caption) + "</figcaption>";
  body_ += "<pre>" + escape(text) + "</pre></figure>\n";
}

void HtmlReport::table(const ReportTable& table) {
  body_ += table_markup(table);
  Json json = Json::object();
  json["kind"] = "table";
  json["caption"] = table.caption;
  json["columns"] = table.columns;
  json["rows"] = table.rows;
  add_data("table", compact(json));
}

void HtmlReport::chart(const ReportChart& chart) {
  const std::string id = format("c{}", next_id_++);
  body_ += figure_markup(chart.title, chart_markup(chart, Embed::kInline, id), chart_table(chart),
                         "chart");
  add_data("chart", compact(chart_json(chart)));
}

void HtmlReport::heat_map(const ReportHeatMap& map) {
  const std::string id = format("c{}", next_id_++);
  body_ += figure_markup(map.title, heat_map_markup(map, Embed::kInline, id), heat_map_table(map),
                         "map");
  add_data("heat_map", compact(heat_map_json(map)));
}

void HtmlReport::provenance(const std::vector<std::pair<std::string, std::string>>& facts) {
  provenance_.insert(provenance_.end(), facts.begin(), facts.end());
}

void HtmlReport::add_data(std::string_view kind, const std::string& json) {
  data_blocks_.push_back(
      format("<script type=\"application/json\" data-kind=\"{}\" id=\"data-{}\">{}</script>\n",
             kind, data_blocks_.size() + 1, json_for_html(json)));
}

std::string HtmlReport::html() const {
  std::string page = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
  page += "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">";
  page +=
      "<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"generator\" "
      "content=\"espalier\">";
  page +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">";
  page += "<title>" + escape(title_) + "</title>\n<style>";
  page += theme_style(":root");
  page += page_style();
  page += svg_style();
  page += "</style></head>\n<body>\n<header><div class=\"brand\">";
  page += brand_mark();
  page += "espalier</div><h1>" + escape(title_) + "</h1>";
  if (!subtitle_.empty()) page += "<p class=\"subtitle\">" + escape(subtitle_) + "</p>";
  page += "</header>\n";
  constexpr std::size_t kMinContents = 4;
  if (headings_.size() >= kMinContents) {
    page += "<nav aria-label=\"Contents\">";
    for (const auto& [anchor, text] : headings_)
      page += "<a href=\"#" + anchor + "\">" + escape(text) + "</a>";
    page += "</nav>\n";
  }
  page += "<main>\n" + body_ + "</main>\n";
  if (!provenance_.empty()) {
    page += "<footer><h2>How this was made</h2><dl>";
    for (const auto& [name, value] : provenance_)
      page += "<dt>" + escape(name) + "</dt><dd>" + escape(value) + "</dd>";
    page += "</dl></footer>\n";
  }
  for (const std::string& block : data_blocks_) page += block;
  return page + "</body></html>\n";
}

void HtmlReport::write(const std::filesystem::path& path) const {
  write_file_atomically(path, html());
}

}  // namespace espalier
