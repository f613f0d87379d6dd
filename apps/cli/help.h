// --help, --explain and `espalier --help`, from the option descriptions alone.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

struct HelpStyle {
  std::size_t width = 100;
  bool bold = false;  // terminal attributes around headings
};

/// The list of verbs in groups.
std::string program_help(const std::vector<Command>& commands, const HelpStyle& style);

/// One verb: usage, options in groups with ranges, choices and defaults, examples.
std::string verb_help(const Command& command, const OptionList& options, const HelpStyle& style);

/// One option in full. Throws Error(kUsage) with the nearest name when there is none called `key`.
std::string explain_option(std::string_view verb, const OptionList& options, std::string_view key);

/// "N", "X", "NAME", or the option's own placeholder; "" for booleans.
std::string value_placeholder(const Option& option);

/// "0 to 0.95; default 0.25", "auto, bi; default auto", "required"; "" when there is nothing to
/// say.
std::string value_rule(const Option& option);

/// Lines of at most `width` columns; each but the first is indented by `indent` spaces. Newlines in
/// `text` stay.
std::string wrap(std::string_view text, std::size_t width, std::size_t indent);

/// The note on ranges and on where values come from, under every verb's help and man page.
std::string_view ranges_note();

}  // namespace espalier::cli
