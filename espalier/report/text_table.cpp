// Tables for a terminal: a header, a rule, aligned columns.
#include <algorithm>

#include "espalier/report/html_report.h"
#include "espalier/report/markup_internal.h"

namespace espalier {
namespace {

using report_internal::append_utf8;
using report_internal::display_width;
using report_internal::next_code_point;

/// One line, nothing that moves the cursor.
std::string cell_text(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    const bool space = c == '\n' || c == '\t' || c == '\r';
    const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
    append_utf8(out, space ? U' ' : control ? U'?' : c);
  }
  return out;
}

}  // namespace

std::string text_table(const std::vector<std::string>& columns,
                       const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> cells{columns};
  cells.insert(cells.end(), rows.begin(), rows.end());
  const std::size_t count =
      std::max_element(cells.begin(), cells.end(), [](const auto& a, const auto& b) {
        return a.size() < b.size();
      })->size();
  std::vector<int> widths(count, 0);
  for (auto& row : cells) {
    row.resize(count);
    for (std::size_t c = 0; c < count; ++c) {
      row[c] = cell_text(row[c]);
      widths[c] = std::max(widths[c], display_width(row[c]));
    }
  }
  std::vector<char> right(count);
  for (std::size_t c = 0; c < count; ++c) right[c] = report_internal::is_numeric_column(rows, c);

  std::string out;
  const auto add_row = [&](const std::vector<std::string>& row) {
    std::string line;
    for (std::size_t c = 0; c < count; ++c) {
      const std::string pad(static_cast<std::size_t>(widths[c] - display_width(row[c])), ' ');
      if (c > 0) line += "  ";
      line += right[c] ? pad + row[c] : row[c] + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  add_row(cells.front());
  std::vector<std::string> rule;
  for (const int width : widths) rule.emplace_back(static_cast<std::size_t>(width), '-');
  add_row(rule);
  for (std::size_t r = 1; r < cells.size(); ++r) add_row(cells[r]);
  return out;
}

}  // namespace espalier
