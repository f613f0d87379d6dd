// The yaml-cpp adapter: one mapping in, option values out, and the same way back.
#include "apps/cli/recipe.h"

#include <algorithm>
#include <map>
#include <optional>

#include <yaml-cpp/yaml.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"

namespace espalier::cli {

namespace {

constexpr std::uint64_t kLargestRecipe = 1u << 20;

std::string position(const YAML::Mark& mark) {
  return mark.is_null() ? std::string("1:1") : format("{}:{}", mark.line + 1, mark.column + 1);
}

// One problem with its place; a single problem becomes the whole error, so its hint can stand on a
// line of its own.
struct Problem {
  std::string place, message, hint;
};

class Problems {
 public:
  explicit Problems(std::string file) : file_(std::move(file)) {}
  void add(const YAML::Mark& mark, std::string message, std::string hint = {}) {
    problems_.push_back({position(mark), std::move(message), std::move(hint)});
  }
  void throw_if_any() const {
    if (problems_.empty()) return;
    if (problems_.size() == 1) {
      const Problem& only = problems_.front();
      throw Error(ErrorKind::kUsage, format("{}:{}", file_, only.place), only.message)
          .hint(only.hint);
    }
    ProblemList list(ErrorKind::kUsage, file_);
    for (const Problem& problem : problems_) {
      list.add(format("{}:{}: {}{}", file_, problem.place, problem.message,
                      problem.hint.empty() ? "" : " (" + problem.hint + ")"));
    }
    list.throw_if_any("`--print-recipe` shows every key with its value");
  }

 private:
  std::string file_;
  std::vector<Problem> problems_;
};

class RecipeReader {
 public:
  RecipeReader(std::string file, std::string_view verb, const std::vector<std::string>& verbs,
               const OptionList& options, std::set<std::string>& given)
      : file_(std::move(file)),
        verb_(verb),
        verbs_(verbs),
        options_(options),
        given_(given),
        problems_(file_) {}

  void read(const std::string& text) {
    const std::vector<YAML::Node> documents = parse(text);
    if (documents.size() > 1)
      throw Error(ErrorKind::kUsage, file_,
                  format("holds {} YAML documents, but a recipe is one", documents.size()))
          .hint("remove the `---` lines between them");
    if (documents.empty() || documents.front().IsNull()) return;
    read_mapping(documents.front(), true);
    problems_.throw_if_any();
  }

 private:
  std::vector<YAML::Node> parse(const std::string& text) const {
    if (text.find('\0') != std::string::npos)
      throw Error(ErrorKind::kUsage, file_, "holds a NUL byte, so it is not YAML text")
          .hint("give a YAML file");
    try {
      return YAML::LoadAll(text);
    } catch (const YAML::Exception& error) {
      throw Error(ErrorKind::kUsage, format("{}:{}", file_, position(error.mark)),
                  format("not valid YAML: {}", error.msg))
          .hint(
              "a recipe is a list of `key: value` lines; quote values that hold `: ` or begin with "
              "a sign");
    }
  }

  void read_mapping(const YAML::Node& node, bool top) {
    if (!node.IsMap())
      return problems_.add(node.Mark(), "a recipe is a mapping of option names to values",
                           "write `key: value` lines");
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        problems_.add(entry.first.Mark(), "a key must be a word");
        continue;
      }
      const std::string key = entry.first.Scalar();
      if (top && entry.second.IsMap() && is_verb(key)) {
        if (same_verb(key, verb_)) read_section(entry.first, entry.second);
        continue;
      }
      read_entry(key, entry.first, entry.second);
    }
  }

  void read_section(const YAML::Node& key, const YAML::Node& section) {
    if (section_seen_)
      return problems_.add(key.Mark(), format("\"{}\" is given twice", key.Scalar()));
    section_seen_ = true;
    read_mapping(section, false);
  }

  void read_entry(const std::string& key, const YAML::Node& key_node, const YAML::Node& value) {
    const Option* option = find_option(options_, key);
    if (option == nullptr) return unknown_key(key, key_node);
    if (!is_recipe_option(*option))
      return problems_.add(key_node.Mark(), format("\"{}\" cannot stand in a recipe", key),
                           format("give {} on the command line", option->flag()));
    const auto [before, fresh] = seen_.emplace(option->name, position(key_node.Mark()));
    if (!fresh)
      return problems_.add(key_node.Mark(),
                           format("\"{}\" is given twice, first at {}", key, before->second),
                           "keep one of them");
    if (value.IsNull()) return;
    const std::optional<std::string> text = value_text(*option, key, value);
    if (!text) return;
    try {
      option->set(*text);
      given_.insert(option->name);
    } catch (const Error& error) {
      problems_.add(value.Mark(), format("{}: {}", key, error.message()),
                    in_recipe_words(*option, error.hint_text()));
    }
  }

  std::optional<std::string> value_text(const Option& option, const std::string& key,
                                        const YAML::Node& value) {
    if (value.IsScalar()) return value.Scalar();
    if (!value.IsSequence() || option.type != OptionType::kStringList) {
      problems_.add(value.Mark(),
                    format("{} takes {}, not a {}", key,
                           option.type == OptionType::kStringList ? "a list of words" : "one value",
                           value.IsSequence() ? "list" : "mapping"));
      return std::nullopt;
    }
    std::vector<std::string> items;
    for (const auto& item : value) {
      if (!item.IsScalar()) {
        problems_.add(item.Mark(), format("{}: an element of the list is not a plain value", key));
        return std::nullopt;
      }
      items.push_back(item.Scalar());
    }
    return detail::print_value(items);
  }

  void unknown_key(const std::string& key, const YAML::Node& node) {
    std::vector<std::string> known;
    for (const Option& option : options_) {
      if (!is_recipe_option(option)) continue;
      known.push_back(option.name);
      known.insert(known.end(), option.traits.aliases.begin(), option.traits.aliases.end());
    }
    const std::string near = nearest(key, known);
    problems_.add(node.Mark(), format("unknown key \"{}\"", key.substr(0, 100)),
                  near.empty() ? format("see `espalier {} --print-recipe` for all keys", verb_)
                               : format("did you mean {}?", near));
  }

  // Hints of option values speak of flags: "--ratio=0.95" is "ratio: 0.95" here.
  static std::string in_recipe_words(const Option& option, std::string hint) {
    const std::string flag = option.flag() + "=";
    const std::size_t at = hint.find(flag);
    if (at != std::string::npos) hint.replace(at, flag.size(), option.name + ": ");
    return hint;
  }

  static bool same_verb(std::string_view a, std::string_view b) {
    const auto folded = [](char c) { return c == '-' || c == '_' ? ' ' : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](char x, char y) { return folded(x) == folded(y); });
  }

  bool is_verb(const std::string& key) const {
    return std::any_of(verbs_.begin(), verbs_.end(),
                       [&](const std::string& verb) { return same_verb(verb, key); });
  }

  std::string file_, verb_;
  const std::vector<std::string>& verbs_;
  const OptionList& options_;
  std::set<std::string>& given_;
  Problems problems_;
  std::map<std::string, std::string> seen_;  // option -> position
  bool section_seen_ = false;
};

// ---- writing
// -------------------------------------------------------------------------------------------------------

// Plain scalars are kept to what no YAML version reads as anything but text or a number.
bool is_plain(std::string_view text) {
  if (text.empty() || text == "null" || text == "Null" || text == "NULL") return false;
  const auto safe = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '/' || c == '+';
  };
  if (!safe(text.front()) || text.front() == '+') return false;
  return std::all_of(text.begin(), text.end(), [&](char c) { return safe(c) || c == '-'; });
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      out += format("\\x{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    else
      out += c;
  }
  return out + "\"";
}

std::string yaml_scalar(std::string_view text) {
  return is_plain(text) ? std::string(text) : quoted(text);
}

std::string yaml_value(const Option& option, const std::string& text) {
  if (option.type == OptionType::kString) return yaml_scalar(text);
  if (option.type != OptionType::kStringList) return text.empty() ? "null" : text;
  std::vector<std::string> items;
  detail::parse_value(option.flag(), text, {}, items);
  std::string list;
  for (const std::string& item : items) list += (list.empty() ? "" : ", ") + yaml_scalar(item);
  return "[" + list + "]";
}

}  // namespace

bool is_recipe_option(const Option& option) {
  return option.name != "recipe" && option.name != "set" && option.name != "print_recipe";
}

void apply_recipe(const std::filesystem::path& file, std::string_view verb,
                  const std::vector<std::string>& verbs, const OptionList& options,
                  std::set<std::string>& given) {
  const std::string text = read_file(file, kLargestRecipe);
  RecipeReader(file.string(), verb, verbs, options, given).read(text);
}

std::string recipe_text(std::string_view verb, const OptionList& options) {
  // How a run is shown is not part of what it does.
  static const std::set<std::string> kDisplay{"json", "save_json", "progress", "log_level",
                                              "debug"};
  std::string text = format("# Recipe of `espalier {}`: every option with its value.\n", verb);
  std::string group;
  for (const Option& option : options) {
    if (!is_recipe_option(option) || kDisplay.contains(option.name)) continue;
    if (option.group != group) text += format("\n# {}\n", option.group);
    group = option.group;
    const std::string value = option.get();
    if (value.empty() && option.default_text.empty())
      text += format("# {}:\n", option.name);
    else
      text += format("{}: {}\n", option.name, yaml_value(option, value));
  }
  return text;
}

}  // namespace espalier::cli
