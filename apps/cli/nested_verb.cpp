// See nested_verb.h.
#include "apps/cli/nested_verb.h"

#include "espalier/base/format.h"

#include "apps/cli/commands.h"
#include "apps/cli/parse.h"
#include "apps/cli/program.h"
#include "apps/cli/recipe.h"
#include "apps/cli/resolve.h"

namespace espalier::cli {
namespace {

/// A verb with its options filled in, ready to run. Options point into `common` and `instance`.
struct Prepared {
  Command::Instance instance;
  CommonOptions common;
  std::string recipe_text;
  std::string command_line;
};

void prepare(const std::string& verb, const std::filesystem::path& recipe,
             std::vector<std::string> words, const Context& outer, Prepared& out) {
  const Command* command = nullptr;
  std::vector<std::string> names;
  for (const Command& known : all_commands()) {
    if (known.name == verb) command = &known;
    if (!known.hidden) names.push_back(known.name);
  }
  ESPALIER_ASSERT(command != nullptr);
  out.instance = command->make();
  if (!recipe.empty()) words.insert(words.begin(), {"--recipe", recipe.string()});
  words.insert(words.end(), {"--device", outer.common.device, "--threads",
                             format("{}", outer.common.threads), "--json"});
  std::vector<std::string> line{"espalier", verb};
  line.insert(line.end(), words.begin(), words.end());
  out.command_line = shell_quoted(line);
  const OptionList options = all_options(out.instance, out.common);
  resolve_options(verb, names, options, parse_arguments(verb, options, words));
  out.recipe_text = recipe_text(verb, options);
  check_required(verb, options);
}

}  // namespace

void check_nested(const std::string& verb, const std::filesystem::path& recipe,
                  std::vector<std::string> words, const Context& outer) {
  Prepared prepared;
  prepare(verb, recipe, std::move(words), outer, prepared);
}

std::string run_nested(const std::string& verb, const std::filesystem::path& recipe,
                       std::vector<std::string> words, const Context& outer) {
  Prepared prepared;
  prepare(verb, recipe, std::move(words), outer, prepared);
  std::string document;
  Context context{
      prepared.common,      outer.reporter,
      outer.stop,           prepared.command_line,
      prepared.recipe_text, [&](const std::string&, const std::string& json) { document = json; }};
  try {
    prepared.instance.run(context);
  } catch (Error& error) {
    throw std::move(error).during(prepared.command_line);
  }
  return document;
}

}  // namespace espalier::cli
