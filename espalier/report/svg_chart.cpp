// Line and bar charts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "espalier/base/format.h"
#include "espalier/report/axis_internal.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier {
namespace report_internal {
namespace {

constexpr double kWidth = 860;
constexpr double kPlotHeight = 250;
constexpr double kLegendRow = 20;
constexpr double kRightMargin = 14;
constexpr std::size_t kMaxMarkers = 40;  // more points than this are a line only
constexpr double kLinePixels = 1.0;  // points nearer than this in x are merged to their extremes

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) { low = std::min(low, value), high = std::max(high, value); }
  bool empty() const { return low > high; }
};

struct Frame {
  double left = 0, top = 0, width = 0, height = kPlotHeight;
  Axis x, y;
  double px(double value) const { return left + width * x.share(value); }
  double py(double value) const { return top + height * (1 - y.share(value)); }
  double bottom() const { return top + height; }
};

bool drawable(double y, bool log_y) { return std::isfinite(y) && (!log_y || y > 0); }

std::size_t points_of(const ReportSeries& series, ReportChart::Kind kind) {
  return kind == ReportChart::Kind::kBar && series.x.empty()
             ? series.y.size()
             : std::min(series.x.size(), series.y.size());
}

Range y_range(const ReportChart& chart) {
  Range range;
  for (const ReportSeries& series : chart.series) {
    for (std::size_t i = 0; i < points_of(series, chart.kind); ++i) {
      if (drawable(series.y[i], chart.log_y)) range.add(series.y[i]);
    }
  }
  return range;
}

Axis y_axis(const ReportChart& chart) {
  Range range = y_range(chart);
  if (range.empty()) return chart.log_y ? log_axis(1, 10) : linear_axis(0, 1, 4, true);
  if (chart.log_y) return log_axis(range.low, range.high);
  if (chart.kind == ReportChart::Kind::kBar) range.add(0);
  return linear_axis(range.low, range.high, 5, /*whole=*/true);
}

double widest_tick(const Axis& axis) {
  double width = 0;
  for (const Tick& tick : axis.ticks) width = std::max(width, text_width(tick.text));
  return width;
}

struct LegendEntry {
  std::string name;
  std::string color_class;  // "0".."7" or "high"
};

std::vector<LegendEntry> legend_entries(const ReportChart& chart) {
  std::vector<LegendEntry> entries;
  const bool highlights = !chart.highlight.empty() && !chart.highlight_name.empty();
  if (chart.series.size() > 1 || highlights) {
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
      entries.push_back({shorten(chart.series[i].name, 48), std::to_string(i % kSeriesColors)});
    }
  }
  if (highlights) entries.push_back({shorten(chart.highlight_name, 48), "high"});
  return entries;
}

/// Draws the legend from `top` down and returns its height.
double draw_legend(const ReportChart& chart, double left, double top, std::string& body) {
  const auto entries = legend_entries(chart);
  if (entries.empty()) return 0;
  double x = left, y = top;
  for (const LegendEntry& entry : entries) {
    const double width = 24 + text_width(entry.name) + 18;
    if (x > left && x + width > kWidth) x = left, y += kLegendRow;
    if (entry.color_class == "high") {
      body += svg_rect(x, y - 9, 16, 10, "class=\"high\" rx=\"2\"");
    } else if (chart.kind == ReportChart::Kind::kBar) {
      body += svg_rect(x, y - 9, 16, 10, format("class=\"f{}\" rx=\"2\"", entry.color_class));
    } else {
      body += svg_line(x, y - 4, x + 18, y - 4, "curve s" + entry.color_class);
    }
    body += svg_text(x + 24, y, "start", "tick", entry.name);
    x += width;
  }
  return y - top + kLegendRow;
}

void draw_y_axis(const Frame& frame, std::string& body) {
  for (const Tick& tick : frame.y.ticks) {
    const double y = frame.py(tick.value);
    body += svg_line(frame.left, y, frame.left + frame.width, y, "grid");
    body += svg_text(frame.left - 8, y + 4, "end", "tick", tick.text);
  }
}

void draw_x_label(const Frame& frame, std::string_view label, double y, std::string& body) {
  if (!label.empty()) body += svg_text(frame.left + frame.width / 2, y, "middle", "label", label);
}

// ---- lines ----

struct Point {
  double x, y;
};

/// Runs of drawable points in pixels. Where many points share a pixel column, its first, lowest,
/// highest and last stay: the picture is the same and a million steps stay a small file.
std::vector<std::vector<Point>> pixel_runs(const ReportSeries& series, const Frame& frame,
                                           bool log_y) {
  std::vector<std::vector<Point>> runs(1);
  std::vector<Point> column;
  const auto flush = [&] {
    if (column.size() > 4) {
      const auto by_y = [](const Point& a, const Point& b) { return a.y < b.y; };
      auto [low, high] = std::minmax_element(column.begin(), column.end(), by_y);
      if (high < low) std::swap(low, high);
      column = {column.front(), *low, *high, column.back()};
    }
    runs.back().insert(runs.back().end(), column.begin(), column.end());
    column.clear();
  };
  for (std::size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    if (!std::isfinite(series.x[i]) || !drawable(series.y[i], log_y)) {
      flush();
      if (!runs.back().empty()) runs.emplace_back();
      continue;
    }
    const Point point{frame.px(series.x[i]), frame.py(series.y[i])};
    if (!column.empty() && std::abs(point.x - column.front().x) >= kLinePixels) flush();
    column.push_back(point);
  }
  flush();
  return runs;
}

void draw_series(const ReportSeries& series, std::size_t index, const Frame& frame, bool log_y,
                 std::string& body) {
  const auto runs = pixel_runs(series, frame, log_y);
  const auto color = std::to_string(index % kSeriesColors);
  std::string path;
  std::size_t count = 0;
  for (const auto& run : runs) {
    for (std::size_t i = 0; i < run.size(); ++i) {
      path += (i == 0 ? "M" : "L") + coordinate(run[i].x) + " " + coordinate(run[i].y);
    }
    count += run.size();
  }
  if (path.empty()) return;
  body += "<path d=\"" + path + "\" class=\"curve s" + color + "\"/>";
  const std::size_t points = std::min(series.x.size(), series.y.size());
  for (std::size_t i = 0; i < points && count <= kMaxMarkers; ++i) {
    if (!std::isfinite(series.x[i]) || !drawable(series.y[i], log_y)) continue;
    body += format("<circle cx=\"{}\" cy=\"{}\" r=\"3\" class=\"f{}\"><title>{}</title></circle>",
                   coordinate(frame.px(series.x[i])), coordinate(frame.py(series.y[i])), color,
                   escape(format("{}: {} at {}", series.name, number_text(series.y[i]),
                                 number_text(series.x[i]))));
  }
}

Axis line_x_axis(const ReportChart& chart) {
  Range range;
  bool integers = true;
  for (const ReportSeries& series : chart.series) {
    for (const double x : series.x) {
      if (!std::isfinite(x)) continue;
      range.add(x);
      integers = integers && x == std::floor(x);
    }
  }
  if (range.empty()) return linear_axis(0, 1, 5, true);
  return linear_axis(range.low, range.high, 8, /*whole=*/false, integers);
}

double draw_lines(const ReportChart& chart, Frame& frame, std::string& body) {
  frame.x = line_x_axis(chart);
  draw_y_axis(frame, body);
  body += svg_line(frame.left, frame.bottom(), frame.left + frame.width, frame.bottom(), "axis");
  for (const Tick& tick : frame.x.ticks) {
    const double x = frame.px(tick.value);
    body += svg_line(x, frame.bottom(), x, frame.bottom() + 4, "axis");
    body += svg_text(x, frame.bottom() + 18, "middle", "tick", tick.text);
  }
  for (std::size_t i = 0; i < chart.series.size(); ++i)
    draw_series(chart.series[i], i, frame, chart.log_y, body);
  draw_x_label(frame, chart.x_label, frame.bottom() + 38, body);
  return frame.bottom() + (chart.x_label.empty() ? 24 : 44);
}

// ---- bars ----

std::vector<std::string> bar_names(const ReportChart& chart) {
  std::size_t count = chart.x_names.size();
  for (const ReportSeries& series : chart.series)
    count = std::max(count, points_of(series, chart.kind));
  std::vector<std::string> names = chart.x_names;
  for (std::size_t i = names.size(); i < count; ++i) {
    const bool known = !chart.series.empty() && i < chart.series.front().x.size();
    names.push_back(number_text(known ? chart.series.front().x[i] : static_cast<double>(i)));
  }
  return names;
}

/// Names below the bars: level when they fit, every k-th when they are numbers, slanted otherwise.
/// Returns the height.
double draw_bar_names(const std::vector<std::string>& names, const std::set<int>& marked,
                      const Frame& frame, std::string& body) {
  const double slot = frame.width / static_cast<double>(names.size());
  double widest = 0;
  bool numbers = true;
  for (const std::string& name : names) {
    widest = std::max(widest, text_width(shorten(name, 24)));
    numbers = numbers && is_number_text(name);
  }
  const bool level = widest + 6 <= slot || numbers;
  const double needed = level ? widest + 6 : 14;
  const auto stride = std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(needed / slot)));
  for (std::size_t i = 0; i < names.size(); ++i) {
    const bool mark = marked.contains(static_cast<int>(i));
    if (i % stride != 0) continue;
    const double x = frame.left + (static_cast<double>(i) + 0.5) * slot;
    const char* style = mark ? "mark" : "tick";
    if (level) {
      body += svg_text(x, frame.bottom() + 18, "middle", style, shorten(names[i], 24));
    } else {
      body += format("<g transform=\"translate({} {}) rotate(-35)\">{}</g>", coordinate(x + 4),
                     coordinate(frame.bottom() + 14),
                     svg_text(0, 0, "end", style, shorten(names[i], 24)));
    }
  }
  return level ? 18 : 14 + widest * 0.58;
}

double draw_bars(const ReportChart& chart, Frame& frame, std::string& body) {
  draw_y_axis(frame, body);
  const std::vector<std::string> names = bar_names(chart);
  const double base =
      frame.y.log ? frame.bottom() : frame.py(std::clamp(0.0, frame.y.low, frame.y.high));
  if (names.empty() || chart.series.empty()) {
    body += svg_line(frame.left, base, frame.left + frame.width, base, "axis");
    return frame.bottom() + 24;
  }
  const std::set<int> marked(chart.highlight.begin(), chart.highlight.end());
  const double slot = frame.width / static_cast<double>(names.size());
  const double group = std::min(slot * 0.74, 72.0 * static_cast<double>(chart.series.size()));
  const double bar = group / static_cast<double>(chart.series.size());
  const bool with_values = names.size() * chart.series.size() <= 12;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const ReportSeries& series = chart.series[s];
    for (std::size_t i = 0; i < std::min(names.size(), points_of(series, chart.kind)); ++i) {
      const double value = series.y[i];
      if (!drawable(value, chart.log_y)) continue;
      const double x = frame.left + (static_cast<double>(i) + 0.5) * slot - group / 2 +
                       static_cast<double>(s) * bar;
      const double y = frame.py(value);
      const bool high = marked.contains(static_cast<int>(i));
      const std::string color = high ? "high" : format("f{}", s % kSeriesColors);
      body += svg_rect(x, std::min(y, base), std::max(bar - (bar > 4 ? 1 : 0), 0.5),
                       std::max(std::abs(base - y), 0.5),
                       format("class=\"{}\"{}", color, bar > 8 ? " rx=\"1.5\"" : ""),
                       format("{}, {}: {}", names[i], series.name, number_text(value)));
      if (with_values) {
        body += svg_text(x + bar / 2, value < 0 ? y + 14 : y - 5, "middle", "label",
                         number_text(value));
      }
    }
  }
  body += svg_line(frame.left, base, frame.left + frame.width, base, "axis");
  const double names_height = draw_bar_names(names, marked, frame, body);
  draw_x_label(frame, chart.x_label, frame.bottom() + names_height + 20, body);
  return frame.bottom() + names_height + (chart.x_label.empty() ? 6 : 26);
}

std::string describe(const ReportChart& chart) {
  std::string text = chart.kind == ReportChart::Kind::kLine ? "Line chart" : "Bar chart";
  if (!chart.x_label.empty()) text += " over " + chart.x_label;
  if (!chart.y_label.empty())
    text += "; vertical axis: " + chart.y_label + (chart.log_y ? ", logarithmic" : "");
  text += ".";
  for (const ReportSeries& series : chart.series) {
    Range range;
    for (const double y : series.y) {
      if (std::isfinite(y)) range.add(y);
    }
    if (range.empty()) continue;
    text += format(" {}: {} values from {} to {}, last {}.", series.name, series.y.size(),
                   number_text(range.low), number_text(range.high), number_text(series.y.back()));
  }
  if (!chart.highlight.empty()) {
    text += format(" {} of them {}.", chart.highlight.size(),
                   chart.highlight_name.empty() ? "highlighted" : chart.highlight_name);
  }
  return text;
}

}  // namespace

std::string chart_markup(const ReportChart& chart, Embed embed, std::string_view id) {
  Frame frame;
  frame.y = y_axis(chart);
  frame.left = std::ceil(std::max(widest_tick(frame.y), 12.0) + 12);
  frame.width = kWidth - frame.left - kRightMargin;
  std::string body;
  double top = 6;
  if (!chart.y_label.empty()) {
    body += svg_text(0, 13, "start", "label",
                     chart.log_y ? chart.y_label + ", logarithmic" : chart.y_label);
    top = 26;
  }
  top += draw_legend(chart, frame.left, top + 10, body);
  frame.top = top + 6;
  const double height = chart.kind == ReportChart::Kind::kLine ? draw_lines(chart, frame, body)
                                                               : draw_bars(chart, frame, body);
  return svg_document(embed, id, kWidth, std::ceil(height), chart.title, describe(chart), body);
}

}  // namespace report_internal

std::string chart_svg(const ReportChart& chart) {
  return report_internal::chart_markup(chart, report_internal::Embed::kStandalone, "chart");
}

}  // namespace espalier
