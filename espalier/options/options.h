// One description of a command's options from which flags, recipe keys, help, JSON schema, shell
// completion, man page and the resolved recipe all come. A typed struct lists its fields in
// `visit`; `describe` turns that into a list of Option records bound to the struct. No parser lives
// here: CLI11 and yaml-cpp are adapted in apps/cli.
//
//   struct PruneOptions {
//     double ratio = 0.25;
//     std::string method = "auto";
//     template <class V> void visit(V&& option) {
//       option.group("What to remove");
//       option("ratio", ratio, "share of decoder layers to remove", in_range(0.0, 0.95));
//       option("method", method, "layer score", one_of({"auto", "reverse", "bi"}));
//     }
//   };
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace espalier {

/// JSON-schema type of an option's value.
enum class OptionType : std::uint8_t { kBoolean, kInteger, kNumber, kString, kStringList };

/// Constraints and spellings of one option; combine with `|`: in_range(0, 1) | alias("rho").
struct OptionTraits {
  std::optional<double> minimum, maximum;
  std::vector<std::string> choices;
  std::vector<std::string> aliases;  // further flag/recipe names, silently accepted
  std::string placeholder;           // FILE, DIR, N, X, TEXT; default by type
  bool required = false;
  bool hidden = false;      // parsed but not in help
  bool positional = false;  // taken from bare arguments, in order of description
};
OptionTraits operator|(OptionTraits a, const OptionTraits& b);
OptionTraits in_range(double minimum, double maximum);
OptionTraits at_least(double minimum);
OptionTraits one_of(std::vector<std::string> choices);
OptionTraits alias(std::string name);
OptionTraits placeholder(std::string text);
OptionTraits required();
OptionTraits positional(std::string placeholder_text);

/// One option bound to a field of a live struct, which must outlive it.
struct Option {
  std::string name;  // snake_case, the recipe key; the flag is the same with dashes
  std::string help;
  std::string group;
  OptionType type = OptionType::kString;
  OptionTraits traits;
  std::string default_text;  // "" when the default is empty
  /// Parses and checks one value; list options split at commas. Throws Error(kUsage): subject is
  /// the flag, message has found and allowed values. `1e-5` is a number for number fields,
  /// "on/off/yes/no/true/false/1/0" for booleans.
  std::function<void(std::string_view)> set;
  /// The current value as text that `set` accepts.
  std::function<std::string()> get;

  std::string flag() const;  // "--train-last"
};

using OptionList = std::vector<Option>;

namespace detail {
// Parsers and printers for each supported field type; Error(kUsage) with subject `flag`.
void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 bool& out);
void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 std::int64_t& out);
void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 double& out);
void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 std::string& out);
void parse_value(std::string_view flag, std::string_view text, const OptionTraits& traits,
                 std::vector<std::string>& out);
std::string print_value(bool value);
std::string print_value(std::int64_t value);
std::string print_value(double value);
std::string print_value(const std::string& value);
std::string print_value(const std::vector<std::string>& value);

template <class T>
constexpr OptionType option_type() {
  if constexpr (std::is_same_v<T, bool>)
    return OptionType::kBoolean;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return OptionType::kInteger;
  else if constexpr (std::is_same_v<T, double>)
    return OptionType::kNumber;
  else if constexpr (std::is_same_v<T, std::vector<std::string>>)
    return OptionType::kStringList;
  else
    return OptionType::kString;
}
template <class T>
struct Unwrap {
  using type = T;
};
template <class T>
struct Unwrap<std::optional<T>> {
  using type = T;
};

class Describer {
 public:
  explicit Describer(OptionList& out) : out_(out) {}
  void group(std::string name) { group_ = std::move(name); }

  /// Field types: bool, std::int64_t, double, std::string, std::vector<std::string>, std::optional
  /// of these.
  template <class T>
  void operator()(std::string name, T& field, std::string help, OptionTraits traits = {}) {
    using Value = typename Unwrap<T>::type;
    constexpr bool kOptional = !std::is_same_v<Value, T>;
    Option option;
    option.name = std::move(name);
    option.help = std::move(help);
    option.group = group_;
    option.type = option_type<Value>();
    option.traits = std::move(traits);
    const std::string flag = option.flag();
    option.set = [&field, flag, t = option.traits](std::string_view text) {
      Value value{};
      parse_value(flag, text, t, value);
      field = std::move(value);
    };
    option.get = [&field] {
      if constexpr (kOptional)
        return field ? print_value(*field) : std::string();
      else
        return print_value(field);
    };
    option.default_text = option.get();
    out_.push_back(std::move(option));
  }

 private:
  OptionList& out_;
  std::string group_;
};
}  // namespace detail

/// The options of a struct with `visit`, bound to this instance.
template <class Options>
OptionList describe(Options& options) {
  OptionList list;
  detail::Describer describer(list);
  options.visit(describer);
  return list;
}

/// nullptr when no option has this name or alias (dashes and underscores are the same).
const Option* find_option(const OptionList& options, std::string_view name);

/// The nearest of `known` by edit distance when it is near enough to be a typing mistake; ""
/// otherwise.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

/// JSON schema (draft 2020-12) of a recipe for these options.
std::string json_schema(std::string_view title, const OptionList& options);

}  // namespace espalier
