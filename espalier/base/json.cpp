// Parsing and printing of Json.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

namespace espalier {
namespace {

constexpr int kMaxDepth = 200;

std::string position(std::string_view text, std::size_t byte) {
  byte = std::min(byte, text.size());
  const auto head = text.substr(0, byte);
  const auto line = 1 + std::count(head.begin(), head.end(), '\n');
  const std::size_t newline = head.rfind('\n');
  return format("{}:{}", line, newline == std::string_view::npos ? byte + 1 : byte - newline);
}

/// nlohmann recurses when it destroys nested values, so depth is bounded before a value exists.
void check_depth(std::string_view text, std::string_view source) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) {
        throw Error(ErrorKind::kInput, format("{}:{}", source, position(text, i)),
                    format("JSON is nested deeper than {} levels", kMaxDepth));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

}  // namespace

Json parse_json(std::string_view text, std::string_view source) {
  check_depth(text, source);
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    std::string_view what = error.what();
    if (const std::size_t colon = what.find(": "); colon != std::string_view::npos)
      what.remove_prefix(colon + 2);
    throw Error(ErrorKind::kInput,
                format("{}:{}", source, position(text, error.byte > 0 ? error.byte - 1 : 0)),
                format("not valid JSON: {}", what));
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kInput, source, format("not valid JSON: {}", error.what()));
  }
}

Json read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path.string());
}

std::string dump_json(const Json& value) {
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace espalier
