// Text that is safe inside HTML, SVG and JSON-in-HTML, and numbers as a reader wants them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace espalier::report_internal {

/// Escapes & < > " ' and replaces what XML forbids (control characters, invalid UTF-8) with U+FFFD.
std::string escape(std::string_view text);

/// Makes JSON text safe inside <script type="application/json">: '<' becomes \u003c.
std::string json_for_html(std::string_view json);

/// Six significant digits at most: "51.74", "1.2e-05" as "1.2e-5", "1,234,567" for large integers;
/// "–" for NaN.
std::string number_text(double value);

/// A coordinate with at most two decimals: "12", "12.5", "-0.25".
std::string coordinate(double value);

/// True for what a column of numbers holds: digits with separators, sign, exponent, "± x", a
/// trailing %, "inf", "nan".
bool is_number_text(std::string_view text);

/// True when the column has a number and every other cell is a number or a gap ("", "-", "–", "—",
/// "n/a").
bool is_numeric_column(const std::vector<std::vector<std::string>>& rows, std::size_t column);

/// Columns of a UTF-8 text on a terminal: combining marks 0, East Asian wide characters and emoji
/// 2, others 1.
int display_width(std::string_view text);

/// At most `count` code points, the last one an ellipsis when cut.
std::string shorten(std::string_view text, std::size_t count);

/// Decodes one code point and advances; U+FFFD for each invalid byte.
char32_t next_code_point(std::string_view text, std::size_t& at);
void append_utf8(std::string& out, char32_t code_point);

}  // namespace espalier::report_internal
