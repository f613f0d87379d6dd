// What line and bar charts share: the plot rectangle with its axes, and which values can be drawn.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "espalier/report/axis_internal.h"
#include "espalier/report/html_report.h"

namespace espalier::report_internal {

inline constexpr double kChartWidth = 860;
inline constexpr double kPlotHeight = 250;
inline constexpr double kRightMargin = 14;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  bool empty() const { return low > high; }
};

/// The plot rectangle in the units of the viewBox.
struct Frame {
  double left = 0, top = 0, width = 0, height = kPlotHeight;
  Axis x, y;
  double px(double value) const { return left + width * x.share(value); }
  double py(double value) const { return top + height * (1 - y.share(value)); }
  double bottom() const { return top + height; }
};

inline bool drawable(double y, bool log_y) { return std::isfinite(y) && (!log_y || y > 0); }

/// Values of a series that have a place: bars may do without x.
std::size_t points_of(const ReportSeries& series, ReportChart::Kind kind);

void draw_y_axis(const Frame& frame, std::string& body);
void draw_x_label(const Frame& frame, std::string_view label, double y, std::string& body);

/// Append the drawing, x axis included; return the y of its lower edge. Bars may move the frame's
/// left edge.
double draw_lines(const ReportChart& chart, Frame& frame, std::string& body);
double draw_bars(const ReportChart& chart, Frame& frame, std::string& body);
double draw_points(const ReportChart& chart, Frame& frame, std::string& body);

/// The horizontal axis of line and scatter charts: its line, ticks and label; returns the y of its
/// lower edge.
double draw_x_axis(const Frame& frame, std::string_view label, std::string& body);

}  // namespace espalier::report_internal
