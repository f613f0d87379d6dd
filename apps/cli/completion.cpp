// Generators of completion scripts; see completion.h.
#include "apps/cli/completion.h"

#include <algorithm>
#include <set>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

#include "apps/cli/commands.h"
#include "apps/cli/help.h"

namespace espalier::cli {

namespace {

struct VerbFlags {
  std::string name, summary;
  OptionList options;  // read only: the structs behind are gone
};

std::vector<VerbFlags> listed_verbs(const std::vector<Command>& commands) {
  std::vector<VerbFlags> verbs;
  for (const Command& command : commands) {
    if (command.hidden) continue;
    const Command::Instance instance = command.make();
    CommonOptions common;
    VerbFlags verb{command.name, command.summary, {}};
    for (const Option& option : all_options(instance, common))
      if (!option.traits.hidden) verb.options.push_back(option);
    verbs.push_back(std::move(verb));
  }
  return verbs;
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

bool is_switch(const Option& option) { return option.type == OptionType::kBoolean; }

bool names_a_file(const Option& option) {
  static const std::set<std::string> kFiles{"FILE",    "DIR", "PATH", "MODEL",
                                            "DATASET", "CNN", "IN",   "FOLDER"};
  const std::string& shape = option.traits.placeholder;
  return std::any_of(kFiles.begin(), kFiles.end(),
                     [&](const std::string& word) { return shape.starts_with(word); });
}

std::vector<std::string> flag_words(const VerbFlags& verb) {
  std::vector<std::string> words;
  for (const Option& option : verb.options) {
    words.push_back(option.flag());
    if (is_switch(option)) words.push_back("--no-" + option.flag().substr(2));
  }
  words.insert(words.end(), {"--help", "--explain", "--json-schema"});
  return words;
}

// First words of the verbs, each once, and the second words of those that have two.
std::vector<std::string> first_words(const std::vector<VerbFlags>& verbs) {
  std::vector<std::string> words;
  for (const VerbFlags& verb : verbs) {
    const std::string word = verb.name.substr(0, verb.name.find(' '));
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  }
  return words;
}

std::vector<std::string> second_words(const std::vector<VerbFlags>& verbs,
                                      const std::string& first) {
  std::vector<std::string> words;
  for (const VerbFlags& verb : verbs)
    if (verb.name.starts_with(first + " ")) words.push_back(verb.name.substr(first.size() + 1));
  return words;
}

std::string bash_script(const std::vector<VerbFlags>& verbs) {
  std::string text =
      "# bash completion of espalier: source <(espalier completion bash)\n"
      "_espalier() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} "
      "verb=${COMP_WORDS[1]} flags=\n"
      "  COMPREPLY=()\n"
      "  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then "
      "prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n";
  text += format(
      "  if ((COMP_CWORD == 1)); then COMPREPLY=($(compgen -W '{} --help --version' -- \"$cur\")); "
      "return; fi\n",
      join(first_words(verbs)));
  for (const std::string& first : first_words(verbs)) {
    const std::vector<std::string> seconds = second_words(verbs, first);
    if (seconds.empty()) continue;
    text += format(
        "  if [[ $verb == {} ]]; then\n    if ((COMP_CWORD == 2)); then COMPREPLY=($(compgen -W "
        "'{}' -- \"$cur\")); return; fi\n"
        "    verb=\"$verb ${{COMP_WORDS[2]}}\"\n  fi\n",
        first, join(seconds));
  }
  text += "  case \"$verb $prev\" in\n";
  for (const VerbFlags& verb : verbs) {
    for (const Option& option : verb.options) {
      if (!option.traits.choices.empty())
        text += format("    '{} {}') COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return;;\n",
                       verb.name, option.flag(), join(option.traits.choices));
      else if (!is_switch(option) && names_a_file(option))
        text += format("    '{} {}') return;;\n", verb.name, option.flag());
    }
  }
  text += "  esac\n  case $verb in\n";
  for (const VerbFlags& verb : verbs)
    text += format("    '{}') flags='{}';;\n", verb.name, join(flag_words(verb)));
  return text +
         "  esac\n"
         "  if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\")); fi\n"
         "}\n"
         "complete -o default -F _espalier espalier\n";
}

// Inside single quotes of a shell.
std::string in_quotes(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out;
}

std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return in_quotes(out);
}

std::string zsh_arguments(const VerbFlags& verb) {
  std::string text = "_arguments";
  for (const Option& option : verb.options) {
    text += format(" \\\n        '{}{}[{}]", option.flag(), is_switch(option) ? "" : "=",
                   zsh_text(option.help));
    if (!is_switch(option)) {
      text += format(":{}:", zsh_text(value_placeholder(option)));
      if (!option.traits.choices.empty())
        text += format("({})", join(option.traits.choices));
      else if (names_a_file(option))
        text += "_files";
    }
    text += '\'';
  }
  return text + " \\\n        '--help[all flags]' '*:file:_files'";
}

std::string zsh_script(const std::vector<VerbFlags>& verbs) {
  std::string text =
      "#compdef espalier\n# zsh completion of espalier: espalier completion zsh > "
      "\"${fpath[1]}/_espalier\"\n_espalier() {\n  local -a verbs\n  verbs=(\n";
  for (const std::string& first : first_words(verbs)) {
    const auto same = std::find_if(verbs.begin(), verbs.end(),
                                   [&](const VerbFlags& verb) { return verb.name == first; });
    text +=
        format("    '{}:{}'\n", first,
               zsh_text(same == verbs.end() ? join(second_words(verbs, first)) : same->summary));
  }
  text +=
      "  )\n  if (( CURRENT == 2 )); then _describe -t verbs verb verbs; return; fi\n  local "
      "verb=$words[2]\n  words=(\"${(@)words[2,-1]}\"); (( CURRENT-- ))\n";
  for (const std::string& first : first_words(verbs)) {
    const std::vector<std::string> seconds = second_words(verbs, first);
    if (seconds.empty()) continue;
    text += format(
        "  if [[ $verb == {} ]]; then\n    if (( CURRENT == 2 )); then compadd {}; return; fi\n    "
        "verb=\"$verb $words[2]\"\n"
        "    words=(\"${{(@)words[2,-1]}}\"); (( CURRENT-- ))\n  fi\n",
        first, join(seconds));
  }
  text += "  case $verb in\n";
  for (const VerbFlags& verb : verbs)
    text += format("    '{}')\n      {} ;;\n", verb.name, zsh_arguments(verb));
  return text +
         "  esac\n}\nif [[ $funcstack[1] == _espalier ]]; then _espalier \"$@\"; else compdef "
         "_espalier espalier; fi\n";
}

std::string fish_condition(const std::string& verb) {
  const std::size_t space = verb.find(' ');
  if (space == std::string::npos) return "__fish_seen_subcommand_from " + verb;
  return format("__fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}",
                verb.substr(0, space), verb.substr(space + 1));
}

std::string fish_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string fish_script(const std::vector<VerbFlags>& verbs) {
  std::string text =
      "# fish completion of espalier: espalier completion fish > "
      "~/.config/fish/completions/espalier.fish\n";
  for (const std::string& first : first_words(verbs)) {
    const auto same = std::find_if(verbs.begin(), verbs.end(),
                                   [&](const VerbFlags& verb) { return verb.name == first; });
    text += format("complete -c espalier -n __fish_use_subcommand -f -a {} -d '{}'\n", first,
                   fish_text(same == verbs.end() ? "" : same->summary));
    for (const std::string& second : second_words(verbs, first))
      text += format("complete -c espalier -n '__fish_seen_subcommand_from {}' -f -a {}\n", first,
                     second);
  }
  for (const VerbFlags& verb : verbs) {
    for (const Option& option : verb.options) {
      text += format("complete -c espalier -n '{}' -l {}", fish_condition(verb.name),
                     option.flag().substr(2));
      if (!option.traits.choices.empty())
        text += format(" -x -a '{}'", join(option.traits.choices));
      else if (!is_switch(option))
        text += names_a_file(option) ? " -r" : " -x";
      text += format(" -d '{}'\n", fish_text(option.help));
    }
  }
  return text;
}

struct CompletionOptions {
  std::string shell;

  template <class V>
  void visit(V&& option) {
    option.group("Shell");
    option("shell", shell, "whose completion script to print",
           positional("SHELL") | required() | one_of({"bash", "zsh", "fish"}));
  }
};

int run_completion(const CompletionOptions& options, Context& context) {
  const std::string script = completion_script(options.shell, all_commands());
  context.print_result(
      script,
      dump_json({{"schema", "espalier.completion/1"}, {"shell", options.shell}, {"text", script}}));
  return 0;
}

}  // namespace

std::string completion_script(std::string_view shell, const std::vector<Command>& commands) {
  const std::vector<VerbFlags> verbs = listed_verbs(commands);
  if (shell == "bash") return bash_script(verbs);
  if (shell == "zsh") return zsh_script(verbs);
  ESPALIER_ASSERT(shell == "fish");
  return fish_script(verbs);
}

Command completion_command() {
  Command command = make_command<CompletionOptions>(
      "completion", "Shell", "print a completion script for bash, zsh or fish", run_completion,
      {"source <(espalier completion bash)"});
  command.hidden = true;
  return command;
}

}  // namespace espalier::cli
