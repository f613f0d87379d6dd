// Values as text: str(), repr() and json.dumps() of Python.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "espalier/base/format.h"
#include "espalier/text/jinja_value_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {
namespace {

/// A string literal as Python's repr() writes it, or as JSON does.
MarkedText quoted(const MarkedText& text, bool json) {
  const bool double_quotes = json || (text.bytes.find('\'') != std::string::npos &&
                                      text.bytes.find('"') == std::string::npos);
  const char quote = double_quotes ? '"' : '\'';
  MarkedText out(std::string(1, quote));
  std::size_t begin = 0;
  const auto flush = [&](std::size_t end) {
    if (begin < end) out.append(text.slice(begin, end));
  };
  for (std::size_t i = 0; i < text.bytes.size(); ++i) {
    const char c = text.bytes[i];
    const auto byte = static_cast<unsigned char>(c);
    std::string escaped;
    if (c == '\\' || c == quote)
      escaped = std::string("\\") + c;
    else if (c == '\n')
      escaped = "\\n";
    else if (c == '\r')
      escaped = "\\r";
    else if (c == '\t')
      escaped = "\\t";
    else if (json && c == '\b')
      escaped = "\\b";
    else if (json && c == '\f')
      escaped = "\\f";
    else if (byte < 0x20 || (!json && byte == 0x7F))
      escaped = json ? format("\\u{:04x}", byte) : format("\\x{:02x}", byte);
    else
      continue;
    flush(i);
    out.append(text.slice(i, i + 1).derived(escaped));
    begin = i + 1;
  }
  flush(text.bytes.size());
  out.append(std::string(1, quote));
  return out;
}

MarkedText scalar(const Value& value, bool json) {
  if (value.is_none()) return json ? "null" : "None";
  if (value.is_bool())
    return value.integer() != 0 ? (json ? "true" : "True") : (json ? "false" : "False");
  if (value.is_int()) return format("{}", value.integer());
  if (value.is_float()) {
    if (json && std::isnan(value.real())) return "NaN";
    if (json && std::isinf(value.real())) return value.real() > 0 ? "Infinity" : "-Infinity";
    return float_text(value.real());
  }
  if (json) type_error(format("a value of type {} has no JSON form", value.type_name()));
  if (value.is_undefined()) return "Undefined";
  return format("<{}>", value.type_name());
}

std::string line_break(int indent, int level) {
  return indent < 0
             ? ""
             : "\n" + std::string(
                          static_cast<std::size_t>(indent) * static_cast<std::size_t>(level), ' ');
}

void json_into(MarkedText& out, const Value& value, int indent, bool sort_keys, int level) {
  const std::string separator = indent < 0 ? ", " : ",";
  if (value.is_text()) {
    out.append(quoted(value.text(), true));
  } else if (value.is_list()) {
    const auto& items = value.items().items;
    if (items.empty()) return out.append("[]");
    out.append("[");
    for (std::size_t i = 0; i < items.size(); ++i) {
      out.append((i > 0 ? separator : "") + line_break(indent, level + 1));
      json_into(out, items[i], indent, sort_keys, level + 1);
    }
    out.append(line_break(indent, level) + "]");
  } else if (value.is_dict()) {
    auto entries = value.entries().entries;
    if (entries.empty()) return out.append("{}");
    if (sort_keys)
      std::sort(entries.begin(), entries.end(),
                [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; });
    out.append("{");
    for (std::size_t i = 0; i < entries.size(); ++i) {
      out.append((i > 0 ? separator : "") + line_break(indent, level + 1));
      const Value& key = entries[i].first;
      out.append(key.is_text() ? quoted(key.text(), true) : quoted(scalar(key, true), true));
      out.append(": ");
      json_into(out, entries[i].second, indent, sort_keys, level + 1);
    }
    out.append(line_break(indent, level) + "}");
  } else {
    out.append(scalar(value, true));
  }
}

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  for (int digits = 1; digits <= 17; ++digits) {  // the shortest that reads back, as repr() gives
    std::snprintf(buffer, sizeof(buffer), "%.*g", digits, value);
    if (std::strtod(buffer, nullptr) == value) break;
  }
  std::string out = buffer;
  const double size = std::fabs(value);
  if (out.find('e') != std::string::npos && size >= 1e-4 &&
      size < 1e16) {  // Python turns to exponents later than %g
    std::snprintf(buffer, sizeof(buffer), "%.0f", value);
    out = buffer;
  }
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}

MarkedText to_repr(const Value& value) {
  if (value.is_text()) return quoted(value.text(), false);
  if (value.is_list()) {
    const List& list = value.items();
    MarkedText out(list.is_tuple ? "(" : "[");
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out.append(", ");
      out.append(to_repr(list.items[i]));
    }
    out.append(list.is_tuple ? (list.items.size() == 1 ? ",)" : ")") : "]");
    return out;
  }
  if (value.is_dict()) {
    MarkedText out("{");
    for (const auto& [key, item] : value.entries().entries) {
      if (out.bytes.size() > 1) out.append(", ");
      out.append(to_repr(key));
      out.append(": ");
      out.append(to_repr(item));
    }
    out.append("}");
    return out;
  }
  return scalar(value, false);
}

MarkedText to_text(const Value& value) {
  if (value.is_text()) return value.text();
  if (value.is_undefined()) return {};
  return to_repr(value);
}

MarkedText to_json(const Value& value, int indent, bool sort_keys) {
  MarkedText out;
  json_into(out, value, indent, sort_keys, 0);
  return out;
}

}  // namespace espalier::text::jinja
