// Heat maps: square cells on a colour-blind-safe scale, colour bar, marked rows and columns,
// hatched gaps.
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

constexpr double kMapSize = 460;  // of the longer side
constexpr double kMaxCell = 44;
constexpr double kMinNumberCell = 34;  // smaller cells show colour only
constexpr std::size_t kMaxTooltips = 2500;
constexpr double kStrip = 5;  // marks of highlighted rows and columns

struct Rgb {
  int r, g, b;
};

// Viridis at 0, 0.1, ... 1.
constexpr Rgb kViridis[kScaleStops] = {{0x44, 0x01, 0x54}, {0x48, 0x24, 0x75}, {0x41, 0x44, 0x87},
                                       {0x35, 0x5f, 0x8d}, {0x2a, 0x78, 0x8e}, {0x21, 0x91, 0x8c},
                                       {0x22, 0xa8, 0x84}, {0x44, 0xbf, 0x70}, {0x7a, 0xd1, 0x51},
                                       {0xbd, 0xdf, 0x26}, {0xfd, 0xe7, 0x25}};

struct Layout {
  std::size_t rows = 0, columns = 0;
  double cell = 0, left = 0, top = 0, width = 0, height = 0;
  double low = 0, high = 1;
  double share(double value) const { return std::clamp((value - low) / (high - low), 0.0, 1.0); }
};

Layout lay_out(const ReportHeatMap& map) {
  Layout layout;
  layout.rows = map.values.size();
  for (const auto& row : map.values) layout.columns = std::max(layout.columns, row.size());
  const auto longest = static_cast<double>(std::max<std::size_t>({layout.rows, layout.columns, 1}));
  layout.cell = std::min(kMaxCell, kMapSize / longest);
  layout.width = layout.cell * static_cast<double>(layout.columns);
  layout.height = layout.cell * static_cast<double>(layout.rows);
  const double last_row = layout.rows == 0 ? 0 : static_cast<double>(layout.rows - 1);
  layout.left = text_width(number_text(last_row)) + 12 + kStrip;
  layout.top = map.y_label.empty() ? 8 : 26;
  layout.low = map.low, layout.high = map.high;
  if (!(layout.low < layout.high)) {  // no usable range given: that of the data
    layout.low = std::numeric_limits<double>::infinity(), layout.high = -layout.low;
    for (const auto& row : map.values) {
      for (const double value : row) {
        if (!std::isfinite(value)) continue;
        layout.low = std::min(layout.low, value), layout.high = std::max(layout.high, value);
      }
    }
    if (!(layout.low < layout.high)) {
      layout.low = std::isfinite(layout.low) ? layout.low - 0.5 : 0;
      layout.high = layout.low + 1;
    }
  }
  return layout;
}

void draw_cells(const ReportHeatMap& map, const Layout& layout, std::string_view id,
                std::string& body) {
  const bool tooltips = layout.rows * layout.columns <= kMaxTooltips;
  const bool numbers = layout.cell >= kMinNumberCell;
  std::string labels;
  body += "<g class=\"cells\">";
  for (std::size_t r = 0; r < layout.rows; ++r) {
    for (std::size_t c = 0; c < layout.columns; ++c) {
      const double value = c < map.values[r].size() ? map.values[r][c] : std::nan("");
      const double x = layout.left + layout.cell * static_cast<double>(c);
      const double y = layout.top + layout.cell * static_cast<double>(r);
      const bool known = !std::isnan(value);
      const ScaleColor color = scale_color(known ? layout.share(value) : 0);
      const std::string fill =
          known ? format("fill=\"{}\"", color.hex) : format("fill=\"url(#{}-gap)\"", escape(id));
      body += svg_rect(x, y, layout.cell, layout.cell, fill,
                       tooltips ? format("{}, {}: {}", r, c, number_text(value)) : std::string());
      if (numbers && known) {
        labels += svg_text(x + layout.cell / 2, y + layout.cell / 2 + 4, "middle",
                           color.is_light ? "on-light" : "on-dark", format("{:.2f}", value));
      }
    }
  }
  body += "</g>" + labels;
  body += svg_rect(layout.left, layout.top, layout.width, layout.height, "class=\"frame\"");
}

/// Frames around the blocks that groups of rows and columns make on the diagonal.
void draw_groups(const ReportHeatMap& map, const Layout& layout, std::string& body) {
  if (map.cuts.empty()) return;
  const auto count = static_cast<int>(std::min(layout.rows, layout.columns));
  std::set<int> edges(map.cuts.begin(), map.cuts.end());
  edges.insert({0, count});
  int first = 0;
  for (const int edge : edges) {
    if (edge <= first || edge > count) continue;
    const double size = layout.cell * (edge - first);
    body += svg_rect(layout.left + layout.cell * first, layout.top + layout.cell * first, size,
                     size, "class=\"group\"");
    first = edge;
  }
}

void draw_axes(const ReportHeatMap& map, const Layout& layout, std::string& body) {
  const std::set<int> marked(map.highlight.begin(), map.highlight.end());
  const double bottom = layout.top + layout.height;
  for (const int index : marked) {
    if (index < 0) continue;
    const double offset = layout.cell * index;
    if (static_cast<std::size_t>(index) < layout.rows) {
      body += svg_rect(layout.left - kStrip - 1, layout.top + offset, kStrip, layout.cell,
                       "class=\"high\"");
    }
    if (static_cast<std::size_t>(index) < layout.columns) {
      body += svg_rect(layout.left + offset, bottom + 1, layout.cell, kStrip, "class=\"high\"");
    }
  }
  const auto stride = [&](double needed) {
    for (const std::size_t step : {1, 2, 5, 10, 20, 50, 100, 200, 500}) {
      if (layout.cell * static_cast<double>(step) >= needed) return step;
    }
    return std::size_t{1000};
  };
  const std::size_t row_stride = stride(14);
  for (std::size_t r = 0; r < layout.rows; r += row_stride) {
    const bool mark = marked.contains(static_cast<int>(r));
    body += svg_text(layout.left - kStrip - 6,
                     layout.top + layout.cell * (static_cast<double>(r) + 0.5) + 4, "end",
                     mark ? "mark" : "tick", std::to_string(r));
  }
  const double widest = text_width(std::to_string(layout.columns));
  for (std::size_t c = 0; c < layout.columns; c += stride(widest + 6)) {
    const bool mark = marked.contains(static_cast<int>(c));
    body += svg_text(layout.left + layout.cell * (static_cast<double>(c) + 0.5),
                     bottom + kStrip + 15, "middle", mark ? "mark" : "tick", std::to_string(c));
  }
  if (!map.y_label.empty()) body += svg_text(0, 13, "start", "label", map.y_label);
  if (!map.x_label.empty()) {
    body += svg_text(layout.left + layout.width / 2, bottom + kStrip + 36, "middle", "label",
                     map.x_label);
  }
}

/// Returns the right edge.
double draw_color_bar(const ReportHeatMap& map, const Layout& layout, std::string_view id,
                      std::string& body) {
  const double x = layout.left + layout.width + 24;
  const double height = std::max(layout.height, 60.0);
  body += format("<defs><linearGradient id=\"{}-scale\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">",
                 escape(id));
  for (int i = 0; i < kScaleStops; ++i) {
    const double share = static_cast<double>(i) / (kScaleStops - 1);
    body += format("<stop offset=\"{}\" stop-color=\"{}\"/>", coordinate(share),
                   scale_color(share).hex);
  }
  body += format(
      "</linearGradient><pattern id=\"{}-gap\" width=\"6\" height=\"6\" "
      "patternUnits=\"userSpaceOnUse\">"
      "<rect width=\"6\" height=\"6\" class=\"gap\"/><path d=\"M0 6L6 0\" "
      "class=\"hatch\"/></pattern></defs>",
      escape(id));
  body += svg_rect(x, layout.top, 14, height, format("fill=\"url(#{}-scale)\"", escape(id)));
  body += svg_rect(x, layout.top, 14, height, "class=\"frame\"");
  const Axis axis = linear_axis(layout.low, layout.high, 5, /*whole=*/false);
  double widest = 0;
  for (const Tick& tick : axis.ticks) {
    const double y = layout.top + height * (1 - axis.share(tick.value));
    body += svg_line(x + 14, y, x + 18, y, "axis");
    body += svg_text(x + 22, y + 4, "start", "tick", tick.text);
    widest = std::max(widest, text_width(tick.text));
  }
  double right = x + 22 + widest + 4;
  const double left = right + 22;
  double top = layout.top;
  const auto legend = [&](std::string_view style, const std::string& name) {
    body += svg_rect(left, top, 14, 10, style);
    body += svg_text(left + 20, top + 9, "start", "tick", shorten(name, 32));
    right = std::max(right, left + 20 + text_width(shorten(name, 32)) + 4);
    top += 20;
  };
  if (!map.highlight.empty() && !map.highlight_name.empty())
    legend("class=\"high\" rx=\"2\"", map.highlight_name);
  if (!map.cuts.empty() && !map.cuts_name.empty()) legend("class=\"group\"", map.cuts_name);
  return right;
}

std::string describe(const ReportHeatMap& map, const Layout& layout) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  std::size_t gaps = 0;
  for (const auto& row : map.values) {
    for (const double value : row) {
      if (std::isnan(value)) {
        ++gaps;
      } else {
        low = std::min(low, value), high = std::max(high, value);
      }
    }
  }
  std::string text = format("Heat map of {} rows and {} columns.", layout.rows, layout.columns);
  if (low <= high) text += format(" Values from {} to {}.", number_text(low), number_text(high));
  if (gaps > 0) text += format(" {} cells without a value are hatched.", gaps);
  return text;
}

}  // namespace

ScaleColor scale_color(double share) {
  const double at = std::clamp(share, 0.0, 1.0) * (kScaleStops - 1);
  const int index = std::min(static_cast<int>(at), kScaleStops - 2);
  const double part = at - index;
  const auto mix = [part](int a, int b) {
    return static_cast<int>(std::lround(a + (b - a) * part));
  };
  const Rgb a = kViridis[index], b = kViridis[index + 1];
  const Rgb color{mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
  // Rec. 709 luma; the threshold is where black and white text have about the same contrast.
  const bool is_light = 0.2126 * color.r + 0.7152 * color.g + 0.0722 * color.b > 128;
  return {format("#{:02x}{:02x}{:02x}", color.r, color.g, color.b), is_light};
}

std::string heat_map_markup(const ReportHeatMap& map, Embed embed, std::string_view id) {
  const Layout layout = lay_out(map);
  std::string body;
  const double right = draw_color_bar(map, layout, id, body);
  draw_cells(map, layout, id, body);
  draw_groups(map, layout, body);
  draw_axes(map, layout, body);
  const double label_width = std::max(text_width(map.y_label), text_width(map.x_label)) + 8;
  const double height =
      layout.top + std::max(layout.height, 60.0) + kStrip + (map.x_label.empty() ? 22 : 44);
  return svg_document(embed, id, std::ceil(std::max(right, label_width)), std::ceil(height),
                      map.title, describe(map, layout), body);
}

}  // namespace report_internal

std::string heat_map_svg(const ReportHeatMap& map) {
  return report_internal::heat_map_markup(map, report_internal::Embed::kStandalone, "map");
}

}  // namespace espalier
