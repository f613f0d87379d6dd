// Line charts: gaps at NaN, markers while there are few points, a moving mean over noisy series.
#include <algorithm>
#include <cmath>
#include <vector>

#include "espalier/base/format.h"
#include "espalier/report/chart_frame_internal.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier::report_internal {
namespace {

constexpr std::size_t kMaxMarkers = 40;  // more points than this are a line only
constexpr double kLinePixels = 1.0;  // points nearer than this in x are merged to their extremes
constexpr std::size_t kMinSmoothed = 200;  // longer noisy series get their moving mean on top
constexpr std::size_t kMinRadius = 7;
constexpr double kSmoothedShare = 0.02;  // of the series in one mean
constexpr double kNoise =
    0.015;  // mean distance from the moving mean, of the axis, that counts as noisy

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

std::string path_of(const ReportSeries& series, const Frame& frame, bool log_y) {
  std::string path;
  for (const auto& run : pixel_runs(series, frame, log_y)) {
    for (std::size_t i = 0; i < run.size(); ++i) {
      path += (i == 0 ? "M" : "L") + coordinate(run[i].x) + " " + coordinate(run[i].y);
    }
  }
  return path;
}

/// Centred moving mean. Gaps stay gaps.
ReportSeries smoothed(const ReportSeries& series, std::size_t radius, bool log_y) {
  ReportSeries mean{series.name, series.x, series.y};
  const std::size_t count = std::min(series.x.size(), series.y.size());
  std::vector<double> sums{0};
  std::vector<std::size_t> counts{0};
  for (std::size_t i = 0; i < count; ++i) {
    const bool ok = drawable(series.y[i], log_y);
    sums.push_back(sums.back() + (ok ? series.y[i] : 0));
    counts.push_back(counts.back() + (ok ? 1 : 0));
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (!drawable(series.y[i], log_y)) continue;
    // Symmetric towards the ends, so that slopes are not bent, but never so narrow that noise
    // shows.
    const std::size_t reach = std::max(std::min({radius, i, count - 1 - i}), radius / 3);
    const std::size_t from = i - std::min(i, reach), to = std::min(count, i + reach + 1);
    mean.y[i] = (sums[to] - sums[from]) / static_cast<double>(counts[to] - counts[from]);
  }
  return mean;
}

/// Half the width of the moving mean, in points; 0 for series that are short or smooth.
std::size_t smoothing_radius(const ReportSeries& series, const Frame& frame, bool log_y) {
  const std::size_t count = std::min(series.x.size(), series.y.size());
  if (count < kMinSmoothed) return 0;
  const auto radius = std::max(
      kMinRadius, static_cast<std::size_t>(kSmoothedShare * static_cast<double>(count) / 2));
  const ReportSeries mean = smoothed(series, radius, log_y);
  double distance = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (drawable(series.y[i], log_y))
      distance += std::abs(frame.y.share(series.y[i]) - frame.y.share(mean.y[i]));
  }
  return distance > kNoise * static_cast<double>(count) ? radius : 0;
}

void draw_markers(const ReportSeries& series, std::string_view color, const Frame& frame,
                  bool log_y, std::string& body) {
  const std::size_t count = std::min(series.x.size(), series.y.size());
  if (count > kMaxMarkers) return;
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::isfinite(series.x[i]) || !drawable(series.y[i], log_y)) continue;
    body += format("<circle cx=\"{}\" cy=\"{}\" r=\"3\" class=\"f{}\"><title>{}</title></circle>",
                   coordinate(frame.px(series.x[i])), coordinate(frame.py(series.y[i])), color,
                   escape(format("{}: {} at {}", series.name, number_text(series.y[i]),
                                 number_text(series.x[i]))));
  }
}

/// Curves in order; noisy ones thin and pale with their mean on top. Returns the widest mean, 0 for
/// none.
std::size_t draw_curves(const ReportChart& chart, const Frame& frame, std::string& body) {
  std::size_t widest = 0;
  std::string means;
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const ReportSeries& series = chart.series[i];
    const std::string color = std::to_string(i % kSeriesColors);
    const std::size_t radius = smoothing_radius(series, frame, chart.log_y);
    const std::string path = path_of(series, frame, chart.log_y);
    if (path.empty()) continue;
    body += format("<path d=\"{}\" class=\"curve s{}{}\"/>", path, color, radius > 0 ? " raw" : "");
    if (radius > 0) {
      means += format("<path d=\"{}\" class=\"curve s{}\"/>",
                      path_of(smoothed(series, radius, chart.log_y), frame, chart.log_y), color);
      widest = std::max(widest, 2 * radius + 1);
    }
    draw_markers(series, color, frame, chart.log_y, body);
  }
  body += means;
  return widest;
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

}  // namespace

double draw_lines(const ReportChart& chart, Frame& frame, std::string& body) {
  frame.x = line_x_axis(chart);
  draw_y_axis(frame, body);
  const double lower = draw_x_axis(frame, chart.x_label, body);
  if (const std::size_t window = draw_curves(chart, frame, body); window > 0) {
    body += svg_text(kChartWidth - kRightMargin, 13, "end", "tick",
                     format("pale: each value; bold: mean of {} neighbours", window));
  }
  return lower;
}

}  // namespace espalier::report_internal
