// Scatter charts: a point per pair of values; a series may be joined by a line, which lies below
// all points.
#include <algorithm>
#include <cmath>

#include "espalier/base/format.h"
#include "espalier/report/chart_frame_internal.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier::report_internal {
namespace {

constexpr double kPad = 0.03;  // of the range, so that no point lies on the frame

bool has_place(const ReportSeries& series, std::size_t i, bool log_y) {
  return std::isfinite(series.x[i]) && drawable(series.y[i], log_y);
}

Axis points_x_axis(const ReportChart& chart) {
  Range range;
  for (const ReportSeries& series : chart.series)
    for (std::size_t i = 0; i < points_of(series, chart.kind); ++i)
      if (has_place(series, i, chart.log_y)) range.add(series.x[i]);
  if (range.empty()) return linear_axis(0, 1, 5, true);
  const double pad = (range.high - range.low) * kPad;
  return linear_axis(range.low - pad, range.high + pad, 8, /*whole=*/false);
}

std::string tooltip_of(const ReportSeries& series, std::size_t i) {
  const std::string& name = i < series.names.size() ? series.names[i] : series.name;
  return format("{}: {} at {}", name, number_text(series.y[i]), number_text(series.x[i]));
}

}  // namespace

double draw_points(const ReportChart& chart, Frame& frame, std::string& body) {
  frame.x = points_x_axis(chart);
  draw_y_axis(frame, body);
  const double lower = draw_x_axis(frame, chart.x_label, body);
  std::string lines, points;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const ReportSeries& series = chart.series[s];
    const std::string color = std::to_string(s % kSeriesColors);
    std::string path;
    for (std::size_t i = 0; i < points_of(series, chart.kind); ++i) {
      if (!has_place(series, i, chart.log_y)) continue;
      const double x = frame.px(series.x[i]), y = frame.py(series.y[i]);
      path += (path.empty() ? "M" : "L") + coordinate(x) + " " + coordinate(y);
      points += svg_marker(x, y, color, tooltip_of(series, i));
    }
    if (series.joined && !path.empty())
      lines += format("<path d=\"{}\" class=\"curve s{}\"/>", path, color);
  }
  body += lines + points;
  return lower;
}

}  // namespace espalier::report_internal
