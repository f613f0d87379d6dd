// A chart's axes, legend and description; what is inside the frame is in svg_line_chart.cpp,
// svg_bar_chart.cpp and svg_scatter_chart.cpp.
#include <algorithm>
#include <cmath>
#include <vector>

#include "espalier/base/format.h"
#include "espalier/report/chart_frame_internal.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier {
namespace report_internal {
namespace {

constexpr double kLegendRow = 20;

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
  if (chart.log_y) {
    // A bar needs some height even for the smallest value; its foot means nothing on a logarithmic
    // axis.
    const bool bars = chart.kind == ReportChart::Kind::kBar;
    return log_axis(bars ? range.low * std::pow(range.low / range.high, 0.1) : range.low,
                    range.high);
  }
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
  bool line = false;        // drawn as a line
};

std::vector<LegendEntry> legend_entries(const ReportChart& chart) {
  std::vector<LegendEntry> entries;
  const bool highlights = !chart.highlight.empty() && !chart.highlight_name.empty();
  if (chart.series.size() > 1 || highlights) {
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
      const bool line = chart.kind == ReportChart::Kind::kLine || chart.series[i].joined;
      entries.push_back(
          {shorten(chart.series[i].name, 48), std::to_string(i % kSeriesColors), line});
    }
  }
  if (highlights) entries.push_back({shorten(chart.highlight_name, 48), "high", false});
  return entries;
}

/// Draws the legend from `top` down and returns its height.
double draw_legend(const ReportChart& chart, double left, double top, std::string& body) {
  const auto entries = legend_entries(chart);
  if (entries.empty()) return 0;
  double x = left, y = top;
  for (const LegendEntry& entry : entries) {
    const double width = 24 + text_width(entry.name) + 18;
    if (x > left && x + width > kChartWidth) x = left, y += kLegendRow;
    if (entry.color_class == "high") {
      body += svg_rect(x, y - 9, 16, 10, "class=\"high\" rx=\"2\"");
    } else if (chart.kind == ReportChart::Kind::kBar) {
      body += svg_rect(x, y - 9, 16, 10, format("class=\"f{}\" rx=\"2\"", entry.color_class));
    } else if (entry.line) {
      body += svg_line(x, y - 4, x + 18, y - 4, "curve s" + entry.color_class);
    } else {
      body += svg_marker(x + 9, y - 4, entry.color_class, {});
    }
    body += svg_text(x + 24, y, "start", "tick", entry.name);
    x += width;
  }
  return y - top + kLegendRow;
}

std::string_view kind_name(ReportChart::Kind kind) {
  switch (kind) {
    case ReportChart::Kind::kLine:
      return "Line chart";
    case ReportChart::Kind::kBar:
      return "Bar chart";
    case ReportChart::Kind::kScatter:
      return "Scatter chart";
  }
  return "Chart";
}

std::string describe(const ReportChart& chart) {
  std::string text(kind_name(chart.kind));
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

std::size_t points_of(const ReportSeries& series, ReportChart::Kind kind) {
  const bool bar = kind == ReportChart::Kind::kBar;
  return bar && series.x.empty() ? series.y.size() : std::min(series.x.size(), series.y.size());
}

void draw_y_axis(const Frame& frame, std::string& body) {
  for (const Tick& tick : frame.y.ticks) {
    const double y = frame.py(tick.value);
    body += svg_line(frame.left, y, frame.left + frame.width, y, "grid");
    body += svg_text(frame.left - 8, y + 4, "end", "tick", tick.text);
  }
}

double draw_x_axis(const Frame& frame, std::string_view label, std::string& body) {
  body += svg_line(frame.left, frame.bottom(), frame.left + frame.width, frame.bottom(), "axis");
  for (const Tick& tick : frame.x.ticks) {
    const double x = frame.px(tick.value);
    body += svg_line(x, frame.bottom(), x, frame.bottom() + 4, "axis");
    body += svg_text(x, frame.bottom() + 18, "middle", "tick", tick.text);
  }
  draw_x_label(frame, label, frame.bottom() + 38, body);
  return frame.bottom() + (label.empty() ? 24 : 44);
}

void draw_x_label(const Frame& frame, std::string_view label, double y, std::string& body) {
  if (!label.empty()) body += svg_text(frame.left + frame.width / 2, y, "middle", "label", label);
}

std::string chart_markup(const ReportChart& chart, Embed embed, std::string_view id) {
  Frame frame;
  frame.y = y_axis(chart);
  frame.left = std::ceil(std::max(widest_tick(frame.y), 12.0) + 12);
  frame.width = kChartWidth - frame.left - kRightMargin;
  std::string body;
  double top = 6;
  if (!chart.y_label.empty()) {
    body += svg_text(0, 13, "start", "label",
                     chart.log_y ? chart.y_label + ", logarithmic" : chart.y_label);
    top = 26;
  }
  top += draw_legend(chart, frame.left, top + 10, body);
  frame.top = top + 6;
  const auto draw = chart.kind == ReportChart::Kind::kLine  ? draw_lines
                    : chart.kind == ReportChart::Kind::kBar ? draw_bars
                                                            : draw_points;
  const double height = draw(chart, frame, body);
  return svg_document(embed, id, kChartWidth, std::ceil(height), chart.title, describe(chart),
                      body);
}

}  // namespace report_internal

std::string chart_svg(const ReportChart& chart) {
  return report_internal::chart_markup(chart, report_internal::Embed::kStandalone, "chart");
}

}  // namespace espalier
