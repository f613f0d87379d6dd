// Building blocks of our SVG: elements as text, the shared style, chart and map markup for pages
// and for single files.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "espalier/report/html_report.h"

namespace espalier::report_internal {

enum class Embed { kInline, kStandalone };  // inline: style and caption come from the page

/// Width of a character of the 12 px chart font: the mean of the widest of our fonts, so that
/// labels have room in all.
inline constexpr double kCharWidth = 7.2;
inline constexpr int kSeriesColors = 8;

double text_width(std::string_view text);

std::string svg_line(double x1, double y1, double x2, double y2, std::string_view style_class);
/// anchor: start, middle, end. `text` is escaped here.
std::string svg_text(double x, double y, std::string_view anchor, std::string_view style_class,
                     std::string_view text);
/// A rectangle, with a tooltip when `tooltip` is not empty (escaped here).
std::string svg_rect(double x, double y, double width, double height, std::string_view attributes,
                     std::string_view tooltip = {});

/// A point of series colour "0".."7", with a tooltip when it is not empty (escaped here).
std::string svg_marker(double x, double y, std::string_view color, std::string_view tooltip);

/// <svg> ... </svg> around `body`, with role, title and description for screen readers. Standalone
/// adds the XML header, the style and the title as text above the drawing (the drawing moves down
/// by kTitleHeight).
std::string svg_document(Embed embed, std::string_view id, double width, double height,
                         std::string_view title, std::string_view description,
                         const std::string& body);
inline constexpr double kTitleHeight = 30;
inline constexpr double kStandalonePad = 16;

/// Custom properties for light and dark, on `selector`; a print rule brings light back.
std::string theme_style(std::string_view selector);
/// Rules for the classes used in our SVG.
std::string svg_style();

std::string chart_markup(const ReportChart& chart, Embed embed, std::string_view id);
std::string heat_map_markup(const ReportHeatMap& map, Embed embed, std::string_view id);

/// Viridis (matplotlib, CC0) at `share` in [0, 1]: "#21918c", and whether dark text reads better on
/// it.
struct ScaleColor {
  std::string hex;
  bool is_light;
};
ScaleColor scale_color(double share);
inline constexpr int kScaleStops = 11;

}  // namespace espalier::report_internal
