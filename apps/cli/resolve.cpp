// Merging of recipe, --set and flags into the option structs.
#include "apps/cli/resolve.h"

#include <map>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

#include "apps/cli/recipe.h"

namespace espalier::cli {

namespace {

// The value of a flag that is not a list and is needed before all others are set.
std::string last_value(const ParsedArguments& arguments, std::string_view name) {
  std::string value;
  for (const auto& [option, text] : arguments.values)
    if (option->name == name) value = text;
  return value;
}

void apply_set(std::string_view verb, const OptionList& options, const std::string& assignment,
               std::set<std::string>& given) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    throw Error(ErrorKind::kUsage, "--set",
                format("\"{}\" is not of the form key=value", assignment))
        .hint("write --set key=value");
  const std::string key = assignment.substr(0, equals), value = assignment.substr(equals + 1);
  const Option* option = find_option(options, key);
  if (option == nullptr || !is_recipe_option(*option)) {
    std::vector<std::string> known;
    for (const Option& other : options)
      if (is_recipe_option(other)) known.push_back(other.name);
    const std::string near = nearest(key, known);
    throw Error(ErrorKind::kUsage, "--set", format("unknown key \"{}\"", key))
        .hint(near.empty() ? format("see `espalier {} --print-recipe` for all keys", verb)
                           : format("did you mean --set {}={}?", near, value));
  }
  try {
    option->set(value);
  } catch (Error& error) {
    throw std::move(error).during(format("applying --set {}", assignment));
  }
  given.insert(option->name);
}

}  // namespace

std::set<std::string> resolve_options(std::string_view verb, const std::vector<std::string>& verbs,
                                      const OptionList& options, const ParsedArguments& arguments) {
  std::set<std::string> given;
  const std::string recipe = last_value(arguments, "recipe");
  if (!recipe.empty()) apply_recipe(recipe, verb, verbs, options, given);
  std::vector<Error> problems;
  const auto collect = [&](auto&& apply) {
    try {
      apply();
    } catch (const Error& error) {
      problems.push_back(error);
    }
  };
  for (const auto& [option, text] : arguments.values)
    if (option->name == "set")
      collect([&, &value = text] { apply_set(verb, options, value, given); });
  std::map<const Option*, std::string> texts;
  for (const auto& [option, text] : arguments.values) {
    if (option->name == "set") continue;
    const auto [place, fresh] = texts.emplace(option, text);
    if (fresh) continue;
    if (option->type == OptionType::kStringList)
      place->second += "," + text;
    else
      place->second = text;
  }
  for (const auto& [option, text] : texts) {
    collect([&, &target = option, &value = text] { target->set(value); });
    given.insert(option->name);
  }
  throw_together(verb, problems);
  return given;
}

void check_required(std::string_view verb, const OptionList& options) {
  std::vector<std::string> missing;
  std::string help;
  for (const Option& option : options) {
    if (!option.traits.required || !option.get().empty()) continue;
    missing.push_back(option.traits.positional ? option.traits.placeholder : option.flag());
    if (help.empty()) help = option.help;
  }
  if (missing.empty()) return;
  const std::string hint = format("the form is: {}", usage_line(verb, options));
  if (missing.size() == 1)
    throw Error(ErrorKind::kUsage, missing.front(), format("is missing: {}", help)).hint(hint);
  ProblemList problems(ErrorKind::kUsage, format("espalier {}", verb));
  for (const std::string& name : missing) problems.add(name + " is missing");
  problems.throw_if_any(hint);
}

}  // namespace espalier::cli
