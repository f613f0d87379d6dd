// Help texts; see help.h.
#include "apps/cli/help.h"

#include <algorithm>

#include "espalier/base/format.h"

#include "apps/cli/parse.h"

namespace espalier::cli {

namespace {

constexpr std::size_t kFlagColumn = 26;

std::string heading(std::string_view text, const HelpStyle& style) {
  return style.bold ? format("\n\x1b[1m{}\x1b[0m\n", text) : format("\n{}\n", text);
}

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

std::string flag_form(const Option& option) {
  const std::string value = value_placeholder(option);
  if (option.traits.positional) return positional_form(option);
  if (value.empty())
    return option.default_text == "true" ? "--no-" + option.flag().substr(2) : option.flag();
  return option.flag() + " " + value;
}

std::string entry(const std::string& left, std::string_view text, const HelpStyle& style) {
  std::string line = "  " + left;
  if (line.size() + 2 > kFlagColumn)
    line.append("\n").append(kFlagColumn, ' ');
  else
    line.resize(kFlagColumn, ' ');
  return line + wrap(text, style.width - kFlagColumn, kFlagColumn) + "\n";
}

std::string option_entry(const Option& option, const HelpStyle& style) {
  const std::string rule = value_rule(option);
  return entry(flag_form(option), option.help + (rule.empty() ? "" : " [" + rule + "]"), style);
}

// Groups in the order of their first option, so a group that is visited in two places still stands
// once.
std::vector<std::string> group_order(const OptionList& options) {
  std::vector<std::string> groups;
  for (const Option& option : options) {
    if (!option.traits.hidden &&
        std::find(groups.begin(), groups.end(), option.group) == groups.end())
      groups.push_back(option.group);
  }
  return groups;
}

std::string type_words(const Option& option) {
  switch (option.type) {
    case OptionType::kBoolean:
      return "on or off";
    case OptionType::kInteger:
      return "whole number";
    case OptionType::kNumber:
      return "number";
    case OptionType::kString:
      return option.traits.choices.empty() ? "text" : "one word";
    case OptionType::kStringList:
      return "list of words, separated by commas";
  }
  return "text";
}

}  // namespace

std::string value_placeholder(const Option& option) {
  if (option.type == OptionType::kBoolean) return {};
  if (!option.traits.placeholder.empty()) return option.traits.placeholder;
  switch (option.type) {
    case OptionType::kInteger:
      return "N";
    case OptionType::kNumber:
      return "X";
    case OptionType::kStringList:
      return option.traits.choices.empty() ? "A,B,..." : "NAME,...";
    default:
      return option.traits.choices.empty() ? "TEXT" : "NAME";
  }
}

std::string value_rule(const Option& option) {
  std::vector<std::string> rules;
  const OptionTraits& traits = option.traits;
  if (traits.required) rules.push_back("required");
  if (!traits.choices.empty()) rules.push_back(join(traits.choices, ", "));
  if (traits.minimum && traits.maximum)
    rules.push_back(format("{} to {}", detail::print_value(*traits.minimum),
                           detail::print_value(*traits.maximum)));
  else if (traits.minimum)
    rules.push_back(format("at least {}", detail::print_value(*traits.minimum)));
  else if (traits.maximum)
    rules.push_back(format("at most {}", detail::print_value(*traits.maximum)));
  if (option.type == OptionType::kBoolean) {
    if (option.default_text == "true") rules.push_back("on by default");
  } else if (!option.default_text.empty()) {
    rules.push_back("default " + option.default_text);
  }
  return join(rules, "; ");
}

std::string wrap(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  std::size_t column = 0;
  std::size_t i = 0;
  while (i < text.size()) {
    if (text[i] == '\n') {
      out.append("\n").append(indent, ' ');
      column = 0;
      ++i;
      continue;
    }
    std::size_t end = text.find_first_of(" \n", i);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view word = text.substr(i, end - i);
    if (column > 0 && column + 1 + word.size() > width) {
      out.append("\n").append(indent, ' ');
      column = 0;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    i = end < text.size() && text[end] == ' ' ? end + 1 : end;
  }
  return out;
}

std::string_view ranges_note() {
  return "Ranges: a-b includes both ends, a:b is half-open as in Python; 12-18 is 12:19. "
         "Every option is also a recipe key (--recipe FILE.yaml, --set key=value); a flag wins "
         "over --set, --set over the "
         "recipe, the recipe over the default. Flags may be written with dashes or underscores; "
         "on/off flags also as --no-flag.";
}

std::string program_help(const std::vector<Command>& commands, const HelpStyle& style) {
  std::string text =
      "espalier: smaller, cheaper deep models: measure, prune, heal, evaluate\n\nusage: espalier "
      "VERB [flags]\n";
  std::vector<std::string> groups;
  for (const Command& command : commands)
    if (!command.hidden && std::find(groups.begin(), groups.end(), command.group) == groups.end())
      groups.push_back(command.group);
  for (const std::string& group : groups) {
    text += heading(group, style);
    for (const Command& command : commands)
      if (!command.hidden && command.group == group)
        text += entry(command.name, command.summary, style);
  }
  text += heading("Help", style);
  text += entry("VERB --help", "all flags of a verb, with ranges, defaults and examples", style);
  text += entry("VERB --explain KEY", "one option in full", style);
  text += entry("VERB --json-schema", "JSON schema of the verb's recipes", style);
  text += entry("man [VERB]", "a man page: espalier man prune | man -l -", style);
  text += entry("completion SHELL",
                "completion for bash, zsh or fish: source <(espalier completion bash)", style);
  text += entry("--version", "versions of espalier and libtorch", style);
  return text;
}

std::string verb_help(const Command& command, const OptionList& options, const HelpStyle& style) {
  std::string text = format("espalier {}: {}\n\nusage: {}\n", command.name, command.summary,
                            wrap(usage_line(command.name, options), style.width - 7, 9));
  for (const std::string& group : group_order(options)) {
    text += heading(group.empty() ? "Options" : group, style);
    for (const Option& option : options)
      if (!option.traits.hidden && option.group == group) text += option_entry(option, style);
  }
  text += heading("Help", style);
  text += entry("--help", "this text", style);
  text += entry("--explain KEY", "one option in full", style);
  text += entry("--json-schema", "JSON schema of this verb's recipes", style);
  if (!command.examples.empty()) {
    text += heading("Examples", style);
    for (const std::string& example : command.examples) text += "  $ " + example + "\n";
  }
  return text + "\n" + wrap(ranges_note(), style.width, 0) + "\n";
}

std::string explain_option(std::string_view verb, const OptionList& options, std::string_view key) {
  while (key.starts_with('-')) key.remove_prefix(1);
  const Option* option = find_option(options, key);
  if (option == nullptr) {
    std::vector<std::string> known;
    for (const Option& other : options) known.push_back(other.name);
    const std::string near = nearest(key, known);
    throw Error(ErrorKind::kUsage, "--explain",
                format("`espalier {}` has no option \"{}\"", verb, key))
        .hint(near.empty() ? format("see `espalier {} --help` for all options", verb)
                           : format("did you mean --explain {}?", near));
  }
  std::string text = format("{}\n  {}\n\n", option->name, wrap(option->help, 96, 2));
  text += format("  flag:     {}\n", flag_form(*option));
  text += format("  type:     {}\n", type_words(*option));
  const OptionTraits& traits = option->traits;
  if (traits.minimum || traits.maximum) {
    text += format("  range:    {} to {}, both included\n",
                   traits.minimum ? detail::print_value(*traits.minimum) : "any",
                   traits.maximum ? detail::print_value(*traits.maximum) : "any");
  }
  if (!traits.choices.empty()) text += format("  choices:  {}\n", join(traits.choices, ", "));
  if (!traits.aliases.empty()) text += format("  also:     {}\n", join(traits.aliases, ", "));
  text += format("  default:  {}\n", !option->default_text.empty() ? option->default_text
                                     : traits.required             ? "none, it must be given"
                                                                   : "not set");
  return text + format("  recipe:   {}: {}\n", option->name,
                       option->default_text.empty() ? "..." : option->default_text);
}

}  // namespace espalier::cli
