// Generators of man pages; see man.h.
#include "apps/cli/man.h"

#include <algorithm>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/run/build_info.h"

#include "apps/cli/commands.h"
#include "apps/cli/help.h"
#include "apps/cli/parse.h"
#include "apps/cli/program.h"

namespace espalier::cli {

namespace {

// Text that roff prints as it stands: no escapes, no requests at the start of a line, hyphens that
// can be copied.
std::string roff(std::string_view text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
    line_start = c == '\n';
  }
  return out;
}

std::string page_name(std::string verb) {
  std::replace(verb.begin(), verb.end(), ' ', '-');
  return "espalier-" + verb;
}

std::string title(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return format(".TH \"{}\" \"1\" \"\" \"espalier {}\" \"User Commands\"\n", name,
                build_info().version);
}

std::string option_form(const Option& option) {
  const std::string value = value_placeholder(option);
  if (option.traits.positional) return format("\\fI{}\\fR", roff(positional_form(option)));
  if (value.empty())
    return format("\\fB{}\\fR, \\fB{}\\fR", roff(option.flag()),
                  roff("--no-" + option.flag().substr(2)));
  return format("\\fB{}\\fR \\fI{}\\fR", roff(option.flag()), roff(value));
}

std::string option_entries(const OptionList& options) {
  std::vector<std::string> groups;
  for (const Option& option : options)
    if (!option.traits.hidden &&
        std::find(groups.begin(), groups.end(), option.group) == groups.end())
      groups.push_back(option.group);
  std::string text;
  for (const std::string& group : groups) {
    text += format(".SS \"{}\"\n", roff(group.empty() ? "Options" : group));
    for (const Option& option : options) {
      if (option.traits.hidden || option.group != group) continue;
      const std::string rule = value_rule(option);
      text += format(".TP\n{}\n{}{}\n", option_form(option), roff(option.help),
                     rule.empty() ? "" : roff(" [" + rule + "]"));
    }
  }
  return text;
}

constexpr const char* kExitStatus =
    ".SH \"EXIT STATUS\"\n"
    ".TP\n0\nsuccess\n.TP\n2\na wrong flag or recipe key\n.TP\n3\na file or value cannot be used\n"
    ".TP\n4\nvalid input of a kind that is not supported\n.TP\n5\nout of memory, disk or another "
    "resource\n"
    ".TP\n6\nsomething is missing on this machine\n.TP\n70\na bug in espalier\n.TP\n130\nstopped "
    "by a signal\n";

struct ManOptions {
  std::vector<std::string> verb;

  template <class V>
  void visit(V&& option) {
    option.group("Page");
    option("verb", verb, "the verb whose page to print; without it, the page of the program",
           positional("VERB"));
  }
};

/// The verb as typed, `prune sweep`, or as its page is called, `prune-sweep`.
std::string page_of(const std::vector<std::string>& words) {
  if (words.empty()) return program_man_page(all_commands());
  for (const Command& command : all_commands()) {
    if (words.size() == 1 && page_name(command.name) == page_name(words.front()))
      return verb_man_page(command);
  }
  return verb_man_page(*find_command(all_commands(), words).command);
}

int run_man(const ManOptions& options, Context& context) {
  const std::string page = page_of(options.verb);
  context.print_result(page, dump_json({{"schema", "espalier.man/1"}, {"text", page}}));
  return 0;
}

}  // namespace

std::string program_man_page(const std::vector<Command>& commands) {
  std::string text = title("espalier");
  text += ".SH NAME\nespalier \\- smaller, cheaper deep models: measure, prune, heal, evaluate\n";
  text += ".SH SYNOPSIS\n.B espalier\n.I VERB\n[flags]\n";
  text +=
      ".SH DESCRIPTION\nespalier measures what a deep model does not need, takes it away, heals "
      "the rest, and evaluates and runs the result.\n"
      "Results go to standard output, as a table or with\n.B \\-\\-json\nas one JSON document; "
      "everything else goes to standard error.\n";
  text += ".SH VERBS\n";
  for (const Command& command : commands) {
    if (command.hidden) continue;
    text += format(".TP\n.BR {} (1)\n{}\n", roff(page_name(command.name)), roff(command.summary));
  }
  text += kExitStatus;
  text +=
      ".SH ENVIRONMENT\n.TP\nHF_HUB_CACHE, HF_HOME\nwhere models named org/name are looked "
      "up\n.TP\nNO_COLOR\nno colours and no terminal attributes\n";
  text +=
      ".SH FILES\nA run writes\n.IR OUT.partial/ ,\nwhich is checked and then renamed to\n.IR OUT "
      ".\nIts facts lie in\n.IR OUT/run/manifest.json .\n";
  return text;
}

std::string verb_man_page(const Command& command) {
  const Command::Instance instance = command.make();
  CommonOptions common;
  const OptionList options = all_options(instance, common);
  const std::string name = page_name(command.name);
  std::string text = title(name);
  text += format(".SH NAME\n{} \\- {}\n", roff(name), roff(command.summary));
  text += format(".SH SYNOPSIS\n.B {}\n", roff(usage_line(command.name, options)));
  text += ".SH OPTIONS\n" + option_entries(options);
  text +=
      ".SS \"Help\"\n.TP\n\\fB\\-\\-help\\fR\nall flags\n.TP\n\\fB\\-\\-explain\\fR "
      "\\fIKEY\\fR\none option in full\n"
      ".TP\n\\fB\\-\\-json\\-schema\\fR\nJSON schema of this verb's recipes\n";
  text += ".SH NOTES\n" + roff(ranges_note()) + "\n";
  if (!command.examples.empty()) {
    text += ".SH EXAMPLES\n";
    text += ".nf\n";
    for (const std::string& example : command.examples) text += roff(example) + "\n";
    text += ".fi\n";
  }
  text += kExitStatus;
  return text + ".SH \"SEE ALSO\"\n.BR espalier (1)\n";
}

Command man_command() {
  Command command = make_command<ManOptions>("man", "Shell", "print a man page", run_man,
                                             {"espalier man prune | man -l -"});
  command.hidden = true;
  return command;
}

}  // namespace espalier::cli
