// The words of a command line matched to options. Values are text here; resolve.h gives them to the
// options. CLI11 does the matching and is seen by parse.cpp only; every message is ours.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/options/options.h"

namespace espalier::cli {

struct ParsedArguments {
  /// Option and value, in the order typed; bare arguments are already matched to positional
  /// options. Points into the list that was given to parse_arguments.
  std::vector<std::pair<const Option*, std::string>> values;
  bool help = false;         // --help, -h
  bool json_schema = false;  // --json-schema
  std::string explain;       // --explain KEY
};

/// Flags may use dashes or underscores, `--flag value` or `--flag=value`; booleans are `--flag`,
/// `--no-flag` or
/// `--flag=off`; everything after `--` is a bare argument. Throws Error(kUsage) for unknown flags
/// (with the nearest known one), missing values and surplus arguments. With --help, what else is
/// wrong does not matter.
ParsedArguments parse_arguments(std::string_view verb, const OptionList& options,
                                const std::vector<std::string>& arguments);

/// Throws the only error, or one Error(kUsage) that lists them all with their hints; nothing when
/// there is none.
void throw_together(std::string_view verb, const std::vector<Error>& errors);

/// "MODEL", or "RUN..." for a positional option that takes several words.
std::string positional_form(const Option& option);

/// `espalier prune MODEL --out PATH [flags]`: positionals and required flags.
std::string usage_line(std::string_view verb, const OptionList& options);

}  // namespace espalier::cli
