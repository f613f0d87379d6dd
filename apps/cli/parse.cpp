// The CLI11 adapter. CLI11 rewrites values (it splits "[a,b]", drops empty ones, reads flags from
// them), so every value carries a mark in front while it passes through; a value without the mark
// is a swallowed flag or a negative number.
#include "apps/cli/parse.h"

#include <algorithm>
#include <map>
#include <set>

#include <CLI/CLI.hpp>

#include "espalier/base/format.h"

namespace espalier::cli {

namespace {

constexpr char kMark = '\x01';

std::string dashed(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

// "--seq_len=8" -> "--seq-len=<mark>8", "text" -> "<mark>text"; what begins with a dash and is no
// long flag stays.
std::vector<std::string> marked(const std::vector<std::string>& arguments) {
  std::vector<std::string> words;
  bool only_bare = false;
  for (const std::string& argument : arguments) {
    if (only_bare || !argument.starts_with('-') || argument == "-") {
      words.push_back(kMark + argument);
    } else if (argument == "--") {
      only_bare = true;
    } else if (!argument.starts_with("--")) {
      words.push_back(argument);
    } else {
      const std::size_t equals = argument.find('=');
      std::string word = dashed(argument.substr(0, equals));
      if (equals != std::string::npos)
        word += std::string("=") + kMark + argument.substr(equals + 1);
      words.push_back(std::move(word));
    }
  }
  return words;
}

// "-5", "-.5": values, not flags.
bool is_number(std::string_view word) {
  return word.size() > 1 && word[0] == '-' &&
         ((word[1] >= '0' && word[1] <= '9') || word[1] == '.');
}

struct FlagTarget {
  const Option* option = nullptr;  // null: --help and the like
  bool negated = false;
};

class Matcher {
 public:
  Matcher(std::string_view verb, const OptionList& options) : verb_(verb), options_(options) {
    app_.set_help_flag();
    app_.allow_extras();
    for (const Option& option : options) {
      add(option.name, option);
      for (const std::string& other : option.traits.aliases) add(other, option);
    }
    for (const char* flag : {"--json-schema", "--help,-h"}) {
      const CLI::Option* added =
          app_.add_flag(flag)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
      targets_[added] = {};
    }
    flags_.insert(flags_.end(), {"--help", "--json-schema", "--explain"});
    targets_[app_.add_option("--explain")->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)] =
        {};
  }

  ParsedArguments parse(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = marked(arguments);
    std::reverse(words.begin(), words.end());  // CLI11 reads from the back
    try {
      app_.parse(words);
    } catch (const CLI::ArgumentMismatch& mismatch) {
      throw missing_value(last_flag(arguments));
    }
    ParsedArguments parsed;
    std::map<const CLI::Option*, std::size_t> used;
    for (const CLI::Option* match : app_.parse_order())
      take(*match, match->results().at(used[match]++), parsed);
    take_rest(app_.remaining(), parsed);
    return parsed;
  }

 private:
  void add(const std::string& name, const Option& option) {
    const std::string flag = "--" + dashed(name);
    if (option.type == OptionType::kBoolean) {
      targets_[app_.add_flag(flag)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)] = {
          &option, false};
      const std::string off = "--no-" + dashed(name);
      targets_[app_.add_flag(off)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)] = {&option,
                                                                                            true};
      flags_.insert(flags_.end(), {flag, off});
    } else {
      targets_[app_.add_option(flag)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)] = {
          &option, false};
      flags_.push_back(flag);
    }
  }

  void take(const CLI::Option& match, std::string value, ParsedArguments& parsed) const {
    const bool was_marked = value.starts_with(kMark);
    if (was_marked) value.erase(0, 1);
    const FlagTarget& target = targets_.at(&match);
    const std::string flag = match.get_name();
    if (!target.option) {
      if (flag == "--help")
        parsed.help = true;
      else if (flag == "--json-schema")
        parsed.json_schema = true;
      else
        parsed.explain = was_marked ? value : throw missing_value(flag, value);
      return;
    }
    if (target.option->type == OptionType::kBoolean)
      return take_boolean(target, flag, value, was_marked, parsed);
    if (!was_marked && value.starts_with("--")) throw missing_value(flag, value);
    parsed.values.emplace_back(target.option, std::move(value));
  }

  static void take_boolean(const FlagTarget& target, const std::string& flag,
                           const std::string& value, bool was_marked, ParsedArguments& parsed) {
    bool on = true;
    if (was_marked) detail::parse_value(flag, value, {}, on);
    parsed.values.emplace_back(target.option, on != target.negated ? "true" : "false");
  }

  // What CLI11 could not match: unknown flags first, since a bare argument may only be an unknown
  // flag's value.
  void take_rest(const std::vector<std::string>& rest, ParsedArguments& parsed) const {
    if (parsed.help) return;
    std::vector<Error> unknown;
    for (const std::string& word : rest)
      if (word.starts_with('-') && !is_number(word)) unknown.push_back(unknown_flag(word));
    throw_together(verb_, unknown);
    std::vector<const Option*> places;
    for (const Option& option : options_)
      if (option.traits.positional) places.push_back(&option);
    std::size_t place = 0;
    for (const std::string& word : rest) {
      const std::string value = word.starts_with(kMark) ? word.substr(1) : word;
      if (place == places.size())
        throw Error(ErrorKind::kUsage, value, format("unexpected argument of `espalier {}`", verb_))
            .hint(format("the form is: {}", usage_line(verb_, options_)));
      // A bare word is one element, commas and all.
      const bool list = places[place]->type == OptionType::kStringList;
      parsed.values.emplace_back(
          places[place], list ? detail::print_value(std::vector<std::string>{value}) : value);
      if (!list) ++place;
    }
  }

  Error unknown_flag(const std::string& word) const {
    const std::string flag = word.substr(0, word.find('='));
    const std::string near = nearest(flag, flags_);
    Error error(ErrorKind::kUsage, flag, format("unknown flag of `espalier {}`", verb_));
    error.hint(near.empty() ? format("see `espalier {} --help` for all flags", verb_)
                            : format("did you mean {}?", near));
    return error;
  }

  Error missing_value(const std::string& flag, const std::string& next = {}) const {
    const Option* option = flag.size() > 2 ? find_option(options_, flag.substr(2)) : nullptr;
    const std::string shape =
        option && !option->traits.placeholder.empty() ? option->traits.placeholder : "VALUE";
    Error error(ErrorKind::kUsage, flag,
                next.empty() ? "needs a value" : format("needs a value, but {} follows", next));
    error.hint(next.empty()
                   ? format("write {} {}; `espalier {} --explain {}` tells what it takes", flag,
                            shape, verb_, flag.substr(2))
                   : format("write {} {}, or {}={} if that is the value", flag, shape, flag, next));
    return error;
  }

  // CLI11 reports a missing value only at the very end of the line: the last word is the flag.
  static std::string last_flag(const std::vector<std::string>& arguments) {
    return arguments.empty() ? std::string("--") : dashed(arguments.back());
  }

  std::string verb_;
  const OptionList& options_;
  CLI::App app_;
  std::map<const CLI::Option*, FlagTarget> targets_;
  std::vector<std::string> flags_;
};

// --help wins over every mistake beside it, but not when it is the value after `--`.
bool asks_for_help(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--help" || argument == "-h") return true;
  }
  return false;
}

}  // namespace

ParsedArguments parse_arguments(std::string_view verb, const OptionList& options,
                                const std::vector<std::string>& arguments) {
  if (asks_for_help(arguments)) {
    ParsedArguments parsed;
    parsed.help = true;
    return parsed;
  }
  return Matcher(verb, options).parse(arguments);
}

void throw_together(std::string_view verb, const std::vector<Error>& errors) {
  if (errors.empty()) return;
  if (errors.size() == 1) throw errors.front();
  ProblemList problems(ErrorKind::kUsage, format("espalier {}", verb));
  for (const Error& error : errors) {
    problems.add(error.hint_text().empty() ? std::string(error.what())
                                           : format("{} ({})", error.what(), error.hint_text()));
  }
  problems.throw_if_any(format("see `espalier {} --help`", verb));
}

namespace {

// "PATH", "hf|gguf" for a few choices, or "VALUE".
std::string value_shape(const Option& option) {
  constexpr std::size_t kFew = 4;
  if (!option.traits.placeholder.empty()) return option.traits.placeholder;
  if (option.traits.choices.empty() || option.traits.choices.size() > kFew) return "VALUE";
  std::string text;
  for (const std::string& choice : option.traits.choices)
    text += (text.empty() ? "" : "|") + choice;
  return text;
}

}  // namespace

std::string positional_form(const Option& option) {
  const std::string& word = option.traits.placeholder;
  return option.type != OptionType::kStringList || word.ends_with("...") ? word : word + "...";
}

std::string usage_line(std::string_view verb, const OptionList& options) {
  std::string line = format("espalier {}", verb);
  for (const Option& option : options) {
    if (!option.traits.positional) continue;
    const std::string word = positional_form(option);
    line += option.traits.required ? " " + word : " [" + word + "]";
  }
  for (const Option& option : options) {
    if (option.traits.positional || !option.traits.required) continue;
    line += format(" {} {}", option.flag(), value_shape(option));
  }
  return line + " [flags]";
}

}  // namespace espalier::cli
