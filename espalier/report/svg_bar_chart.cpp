// Bar charts: groups of bars, names below that fit or are slanted, values on top while there are
// few.
#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "espalier/base/format.h"
#include "espalier/report/chart_frame_internal.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier::report_internal {
namespace {

constexpr double kSlantCos = 0.82, kSlantSin = 0.58;  // of the 35 degrees of slanted names

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
struct BarNames {
  std::vector<std::string> texts;
  double widest = 0;
  bool level = true;
  std::size_t stride = 1;
};

BarNames lay_out_names(std::vector<std::string> names, Frame& frame) {
  BarNames layout{std::move(names)};
  bool numbers = true;
  for (std::string& name : layout.texts) {
    numbers = numbers && is_number_text(name);
    name = shorten(name, 24);
    layout.widest = std::max(layout.widest, text_width(name));
  }
  const auto count = static_cast<double>(layout.texts.size());
  layout.level = numbers || layout.widest + 6 <= frame.width / count;
  if (!layout.level) {  // the first name reaches out to the left
    const double reach = text_width(layout.texts.front()) * kSlantCos - frame.width / count / 2;
    const double more = std::max(0.0, std::ceil(reach - frame.left));
    frame.left += more, frame.width -= more;
  }
  const double needed = layout.level ? layout.widest + 6 : 14;
  layout.stride =
      std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(needed / (frame.width / count))));
  return layout;
}

/// Returns the height used.
double draw_bar_names(const BarNames& names, const std::set<int>& marked, const Frame& frame,
                      std::string& body) {
  const double slot = frame.width / static_cast<double>(names.texts.size());
  for (std::size_t i = 0; i < names.texts.size(); i += names.stride) {
    const char* style = marked.contains(static_cast<int>(i)) ? "mark" : "tick";
    const double x = frame.left + (static_cast<double>(i) + 0.5) * slot;
    if (names.level) {
      body += svg_text(x, frame.bottom() + 18, "middle", style, names.texts[i]);
    } else {
      body += format("<g transform=\"translate({} {}) rotate(-35)\">{}</g>", coordinate(x + 4),
                     coordinate(frame.bottom() + 14), svg_text(0, 0, "end", style, names.texts[i]));
    }
  }
  return names.level ? 18 : 14 + names.widest * kSlantSin;
}

/// One rectangle per value, and the values themselves when there are few.
void draw_bar_groups(const ReportChart& chart, const std::vector<std::string>& names,
                     const std::set<int>& marked, double base, const Frame& frame,
                     std::string& body) {
  const auto series_count = static_cast<double>(chart.series.size());
  const double slot = frame.width / static_cast<double>(names.size());
  const double group = std::min(slot * 0.74, 72.0 * series_count);
  const double bar = group / series_count;
  const bool with_values = bar >= 40 || names.size() * chart.series.size() <= 12;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const ReportSeries& series = chart.series[s];
    for (std::size_t i = 0; i < std::min(names.size(), points_of(series, chart.kind)); ++i) {
      const double value = series.y[i];
      if (!drawable(value, chart.log_y)) continue;
      const double x = frame.left + (static_cast<double>(i) + 0.5) * slot - group / 2 +
                       static_cast<double>(s) * bar;
      const double y = frame.py(value);
      const std::string color =
          marked.contains(static_cast<int>(i)) ? "high" : format("f{}", s % kSeriesColors);
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
}

}  // namespace

double draw_bars(const ReportChart& chart, Frame& frame, std::string& body) {
  const std::vector<std::string> names = bar_names(chart);
  const bool empty = names.empty() || chart.series.empty();
  const BarNames name_layout = empty ? BarNames{} : lay_out_names(names, frame);
  draw_y_axis(frame, body);
  const double base =
      frame.y.log ? frame.bottom() : frame.py(std::clamp(0.0, frame.y.low, frame.y.high));
  const std::set<int> marked(chart.highlight.begin(), chart.highlight.end());
  if (!empty) draw_bar_groups(chart, names, marked, base, frame, body);
  body += svg_line(frame.left, base, frame.left + frame.width, base, "axis");
  const double names_height = empty ? 0 : draw_bar_names(name_layout, marked, frame, body);
  draw_x_label(frame, chart.x_label, frame.bottom() + names_height + 20, body);
  return frame.bottom() + names_height + (chart.x_label.empty() ? 6 : 26);
}

}  // namespace espalier::report_internal
