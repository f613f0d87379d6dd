// Traits, look-up by name, the nearest known word, and the JSON schema of a recipe.
#include "espalier/options/options.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "espalier/base/json_internal.h"

namespace espalier {

OptionTraits operator|(OptionTraits a, const OptionTraits& b) {
  if (b.minimum) a.minimum = b.minimum;
  if (b.maximum) a.maximum = b.maximum;
  if (!b.choices.empty()) a.choices = b.choices;
  a.aliases.insert(a.aliases.end(), b.aliases.begin(), b.aliases.end());
  if (!b.placeholder.empty()) a.placeholder = b.placeholder;
  a.required |= b.required;
  a.hidden |= b.hidden;
  a.positional |= b.positional;
  return a;
}

OptionTraits in_range(double minimum, double maximum) {
  OptionTraits traits;
  traits.minimum = minimum;
  traits.maximum = maximum;
  return traits;
}

OptionTraits at_least(double minimum) {
  OptionTraits traits;
  traits.minimum = minimum;
  return traits;
}

OptionTraits one_of(std::vector<std::string> choices) {
  OptionTraits traits;
  traits.choices = std::move(choices);
  return traits;
}

OptionTraits alias(std::string name) {
  OptionTraits traits;
  traits.aliases.push_back(std::move(name));
  return traits;
}

OptionTraits placeholder(std::string text) {
  OptionTraits traits;
  traits.placeholder = std::move(text);
  return traits;
}

OptionTraits required() {
  OptionTraits traits;
  traits.required = true;
  return traits;
}

OptionTraits positional(std::string placeholder_text) {
  OptionTraits traits;
  traits.positional = true;
  traits.placeholder = std::move(placeholder_text);
  return traits;
}

std::string Option::flag() const {
  std::string text = "--" + name;
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

namespace {

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return (x == '-' ? '_' : x) == (y == '-' ? '_' : y); });
}

// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours
// count 1.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before, last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = last;
    last = row;
  }
  return last[b.size()];
}

std::string normalised(std::string_view word) {
  std::string text(word);
  for (char& c : text) {
    if (c == '-') c = '_';
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

}  // namespace

const Option* find_option(const OptionList& options, std::string_view name) {
  for (const Option& option : options) {
    if (same_name(option.name, name)) return &option;
    for (const std::string& other : option.traits.aliases)
      if (same_name(other, name)) return &option;
  }
  return nullptr;
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t kLongest =
      64;  // the distance is quadratic, and nobody mistypes a paragraph
  if (word.empty() || word.size() > kLongest) return {};
  const std::string wanted = normalised(word);
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(wanted, normalised(candidate));
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  if (!best.empty() || wanted.size() < 3) return best;
  // The beginning of exactly one known word: `--calib` for `--calibration`.
  for (const std::string& candidate : known) {
    if (!normalised(candidate).starts_with(wanted)) continue;
    if (!best.empty()) return {};
    best = candidate;
  }
  return best;
}

namespace {

// Whole bounds print as 1, not 1.0, as far as doubles count exactly.
Json number_json(double value) {
  constexpr double kExact = 9007199254740992.0;
  if (value < -kExact || value > kExact) return value;
  const auto whole = static_cast<std::int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

Json default_json(const Option& option) {
  const std::string& text = option.default_text;
  switch (option.type) {
    case OptionType::kBoolean:
      return text == "true";
    case OptionType::kInteger: {
      std::int64_t value = 0;
      detail::parse_value(option.flag(), text, {}, value);
      return value;
    }
    case OptionType::kNumber: {
      double value = 0;
      detail::parse_value(option.flag(), text, {}, value);
      return value;
    }
    case OptionType::kString:
      return text;
    case OptionType::kStringList: {
      std::vector<std::string> value;
      detail::parse_value(option.flag(), text, {}, value);
      return value;
    }
  }
  return nullptr;
}

const char* type_name(OptionType type) {
  switch (type) {
    case OptionType::kBoolean:
      return "boolean";
    case OptionType::kInteger:
      return "integer";
    case OptionType::kNumber:
      return "number";
    case OptionType::kString:
      return "string";
    case OptionType::kStringList:
      return "array";
  }
  return "string";
}

Json property_json(const Option& option) {
  Json property = {{"type", type_name(option.type)}, {"description", option.help}};
  Json values = Json::object();  // constraints of one value
  if (option.traits.minimum) values["minimum"] = number_json(*option.traits.minimum);
  if (option.traits.maximum) values["maximum"] = number_json(*option.traits.maximum);
  if (!option.traits.choices.empty()) values["enum"] = option.traits.choices;
  if (option.type == OptionType::kStringList) {
    values["type"] = "string";
    property["items"] = values;
  } else {
    property.update(values);
  }
  if (!option.default_text.empty()) property["default"] = default_json(option);
  return property;
}

}  // namespace

std::string json_schema(std::string_view title, const OptionList& options) {
  Json properties = Json::object();
  for (const Option& option : options) {
    if (option.traits.hidden) continue;
    properties[option.name] = property_json(option);
    for (const std::string& other : option.traits.aliases) {
      std::string key = other;
      std::replace(key.begin(), key.end(), '-', '_');
      properties[key] = {{"$ref", "#/properties/" + option.name}};
    }
  }
  return dump_json({{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                    {"title", std::string(title)},
                    {"type", "object"},
                    {"properties", properties},
                    {"additionalProperties", false}});
}

}  // namespace espalier
