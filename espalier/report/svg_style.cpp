// Colours (Okabe and Ito 2008), type and line weights of every chart; SVG elements as text.
#include "espalier/base/format.h"
#include "espalier/report/markup_internal.h"
#include "espalier/report/svg_internal.h"

namespace espalier::report_internal {
namespace {

// Okabe-Ito, ordered by contrast with the background; the yellow goes last. On dark, blue and black
// trade places with sky blue and near-white, and the accent is lightened.
constexpr std::string_view kLight =
    "--bg:#f7f7f4;--card:#ffffff;--ink:#1a1f24;--muted:#59626c;--rule:#dfe2dc;--grid:#e8eae5;--"
    "axis:#9aa19b;"
    "--accent:#d55e00;--link:#0072b2;--s0:#0072b2;--s1:#e69f00;--s2:#009e73;--s3:#cc79a7;--s4:#"
    "56b4e9;--s5:#000000;"
    "--s6:#d55e00;--s7:#b8a800;";
constexpr std::string_view kDark =
    "--bg:#121518;--card:#1a1e22;--ink:#e9ebee;--muted:#a3acb5;--rule:#2e343a;--grid:#272d33;--"
    "axis:#5d666f;"
    "--accent:#f0803c;--link:#56b4e9;--s0:#56b4e9;--s1:#e69f00;--s2:#1fbf92;--s3:#dd94bd;--s4:#"
    "3f8fd0;--s5:#f2f2f2;"
    "--s6:#f0803c;--s7:#f0e442;";

constexpr std::string_view kDashes[] = {"", "", "", "", "6 3", "2 3", "8 3 2 3", "4 2"};

}  // namespace

double text_width(std::string_view text) { return kCharWidth * display_width(text); }

std::string svg_line(double x1, double y1, double x2, double y2, std::string_view style_class) {
  return format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\"/>", coordinate(x1),
                coordinate(y1), coordinate(x2), coordinate(y2), style_class);
}

std::string svg_text(double x, double y, std::string_view anchor, std::string_view style_class,
                     std::string_view text) {
  return format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\" class=\"{}\">{}</text>", coordinate(x),
                coordinate(y), anchor, style_class, escape(text));
}

std::string svg_rect(double x, double y, double width, double height, std::string_view attributes,
                     std::string_view tooltip) {
  const std::string open =
      format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {}", coordinate(x), coordinate(y),
             coordinate(width), coordinate(height), attributes);
  return tooltip.empty() ? open + "/>" : open + "><title>" + escape(tooltip) + "</title></rect>";
}

std::string svg_marker(double x, double y, std::string_view color, std::string_view tooltip) {
  const std::string open = format("<circle cx=\"{}\" cy=\"{}\" r=\"3.5\" class=\"f{} point\"",
                                  coordinate(x), coordinate(y), color);
  return tooltip.empty() ? open + "/>" : open + "><title>" + escape(tooltip) + "</title></circle>";
}

std::string theme_style(std::string_view selector) {
  return format(
      "{0}{{{1}}}@media (prefers-color-scheme:dark){{{0}{{{2}}}}}@media print{{{0}{{{1}}}}}",
      selector, kLight, kDark);
}

std::string svg_style() {
  std::string style =
      "svg text{font:12px/1 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica "
      "Neue',Arial,sans-serif;"
      "fill:var(--muted);font-variant-numeric:tabular-nums}"
      "svg .label{fill:var(--ink);font-weight:500}"
      "svg .title{fill:var(--ink);font-size:15px;font-weight:600}"
      "svg .mark{fill:var(--accent);font-weight:700}"
      "svg .grid{stroke:var(--grid);stroke-width:1;shape-rendering:crispEdges}"
      "svg .axis{stroke:var(--axis);stroke-width:1;shape-rendering:crispEdges}"
      "svg .frame{fill:none;stroke:var(--axis);stroke-width:1;shape-rendering:crispEdges}"
      "svg .curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
      "svg .raw{stroke-width:1;stroke-opacity:.3;stroke-dasharray:none!important}"
      "svg .point{stroke:var(--card);stroke-width:1}"
      "svg .high{fill:var(--accent)}"
      "svg .group{fill:none;stroke:var(--accent);stroke-width:2}"
      "svg .cells{shape-rendering:crispEdges}"
      "svg .on-dark{fill:#ffffff;font-size:11px}svg .on-light{fill:#1a1f24;font-size:11px}"
      "svg .gap{fill:var(--bg)}svg .hatch{stroke:var(--axis);stroke-width:1}";
  for (int i = 0; i < kSeriesColors; ++i) {
    style += format("svg .s{0}{{stroke:var(--s{0})}}svg .f{0}{{fill:var(--s{0})}}", i);
    if (!kDashes[i].empty())
      style += format("svg .curve.s{}{{stroke-dasharray:{}}}", i, kDashes[i]);
  }
  return style;
}

std::string svg_document(Embed embed, std::string_view id, double width, double height,
                         std::string_view title, std::string_view description,
                         const std::string& body) {
  const bool alone = embed == Embed::kStandalone;
  const double pad = alone ? kStandalonePad : 0;
  const double full_width = width + 2 * pad;
  const double full_height = height + (alone ? kTitleHeight : 0) + 2 * pad;
  std::string svg = alone ? "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" : "";
  // HTML knows the namespace by itself; without the address a page names no host at all.
  svg += alone ? "<svg xmlns=\"http://www.w3.org/2000/svg\" " : "<svg ";
  svg += format(
      "viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" role=\"img\" "
      "aria-labelledby=\"{2}-title {2}-desc\"><title id=\"{2}-title\">{3}</title><desc "
      "id=\"{2}-desc\">{4}</desc>",
      coordinate(full_width), coordinate(full_height), escape(id), escape(title),
      escape(description));
  if (!alone) return svg + body + "</svg>\n";
  svg += "<style>" + theme_style("svg") + svg_style() + "</style>";
  svg += "<rect width=\"100%\" height=\"100%\" style=\"fill:var(--card)\"/>";
  svg += svg_text(pad, pad + 14, "start", "title", title);
  svg += format("<g transform=\"translate({} {})\">{}</g>", coordinate(pad),
                coordinate(pad + kTitleHeight), body);
  return svg + "</svg>\n";
}

}  // namespace espalier::report_internal
