// Reading typed values out of a config.json while collecting every problem instead of stopping at
// the first. Internal: nlohmann's type is visible here.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

namespace espalier {

/// Values of one JSON object. A key that is absent or null gives the fallback; a key of the wrong
/// type or out of range is recorded as a problem and gives the fallback too.
class ConfigReader {
 public:
  ConfigReader(const Json& object, ProblemList& problems, std::string prefix = "")
      : object_(object), problems_(problems), prefix_(std::move(prefix)) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }

  const Json* find(std::string_view key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  std::optional<std::int64_t> integer(std::string_view key, std::int64_t minimum,
                                      std::int64_t maximum) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    std::optional<std::int64_t> number;
    if (value->is_number_unsigned()) {
      const auto raw = value->get<std::uint64_t>();
      if (raw <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        number = static_cast<std::int64_t>(raw);
    } else if (value->is_number_integer()) {
      number = value->get<std::int64_t>();
    } else if (value->is_number_float() &&
               std::trunc(value->get<double>()) == value->get<double>() &&
               std::abs(value->get<double>()) < 9e15) {
      number = static_cast<std::int64_t>(value->get<double>());
    }
    if (number && *number >= minimum && *number <= maximum) return number;
    wrong(key, *value, format("an integer in {}-{}", minimum, maximum));
    return std::nullopt;
  }

  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t minimum,
                          std::int64_t maximum) {
    return integer(key, minimum, maximum).value_or(fallback);
  }

  /// A size that must be there; the problem names the key when it is not.
  std::int64_t required_size(std::string_view key, std::int64_t maximum) {
    if (!has(key)) {
      problems_.add(format("{}{} is missing", prefix_, key));
      return 0;
    }
    return integer(key, 1, maximum).value_or(0);
  }

  double number_or(std::string_view key, double fallback, double minimum, double maximum) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->is_number()) {
      const auto number = value->get<double>();
      if (number >= minimum && number <= maximum) return number;
    }
    wrong(key, *value, format("a number in {}..{}", minimum, maximum));
    return fallback;
  }

  bool boolean_or(std::string_view key, bool fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->is_boolean()) return value->get<bool>();
    wrong(key, *value, "true or false");
    return fallback;
  }

  std::string text_or(std::string_view key, std::string_view fallback) {
    const Json* value = find(key);
    if (value == nullptr) return std::string(fallback);
    if (value->is_string()) return value->get<std::string>();
    wrong(key, *value, "a string");
    return std::string(fallback);
  }

  /// One integer or a list of them.
  std::vector<std::int64_t> integers(std::string_view key) {
    const Json* value = find(key);
    std::vector<std::int64_t> out;
    if (value == nullptr) return out;
    const auto take = [&](const Json& item) {
      if (item.is_number_integer())
        out.push_back(item.get<std::int64_t>());
      else
        wrong(key, item, "integers");
    };
    if (value->is_array()) {
      for (const Json& item : *value) take(item);
    } else {
      take(*value);
    }
    return out;
  }

  void wrong(std::string_view key, const Json& found, std::string_view expected) {
    std::string shown = found.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 60) shown.replace(57, std::string::npos, "...");
    problems_.add(format("{}{} is {}, expected {}", prefix_, key, shown, expected));
  }

 private:
  const Json& object_;
  ProblemList& problems_;
  std::string prefix_;
};

}  // namespace espalier
