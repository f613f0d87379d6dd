// What a verb is to the program: a name, an options struct, a function. Verbs parse, call one
// library function, print.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/reporter.h"
#include "espalier/options/options.h"

namespace espalier::cli {

/// Options every verb takes.
struct CommonOptions {
  std::string recipe;
  std::vector<std::string> set;  // handled by the parser: key=value
  std::int64_t seed = 0;
  std::int64_t threads = 0;  // 0: all cores this process may use
  std::string device = "cpu";
  std::string progress = "auto";
  std::string log_level = "info";
  bool json = false;
  std::string save_json;
  bool debug = false;
  bool print_recipe = false;

  template <class V>
  void visit(V&& option) {
    option.group("Common");
    option("recipe", recipe, "read options from a YAML file; flags on the command line win",
           placeholder("FILE"));
    option("set", set, "set one recipe key, as key=value; may be repeated",
           placeholder("KEY=VALUE"));
    option("seed", seed, "seed of every random stream of the run", at_least(0));
    option("threads", threads, "CPU threads; 0 uses every core this process may run on",
           in_range(0, 4096));
    option("device", device, "where tensors live: cpu, cuda, cuda:N or auto",
           placeholder("DEVICE"));
    option("json", json, "print one JSON document on stdout instead of a table");
    option("save_json", save_json, "also write that JSON document to a file", placeholder("FILE"));
    option("progress", progress, "how progress is shown on stderr",
           one_of({"auto", "bar", "plain", "json", "none"}));
    option("log_level", log_level, "what is logged on stderr",
           one_of({"error", "warn", "info", "debug"}));
    option("debug", debug, "on an error, also print where it was thrown");
    option("print_recipe", print_recipe, "print the resolved options as a recipe and stop");
  }
};

/// What a verb's function gets besides its options.
struct Context {
  const CommonOptions& common;
  Reporter& reporter;
  const StopToken& stop;
  std::string command_line;     // as typed, shell-quoted, for manifests and model cards
  std::string resolved_recipe;  // YAML of every option, for run/recipe.resolved.yaml
  /// Prints the verb's result: `json` with --json, else `text`. Called once, at the end.
  std::function<void(const std::string& text, const std::string& json)> print_result;
};

struct Command {
  std::string name;     // "prune", or "graph train"
  std::string summary;  // one line
  std::string group;  // heading in `espalier --help`: "Measure", "Shrink", "Train", "Run", "Files"
  std::vector<std::string> examples;  // for --help and the man page
  bool hidden = false;                // works, but is not listed (completion, man)
  /// Makes a fresh options struct; `list` stays bound to it as long as `instance` lives.
  struct Instance {
    std::shared_ptr<void> owner;
    OptionList list;
    std::function<int(Context&)> run;  // returns the exit code
  };
  std::function<Instance()> make;
};

template <class Options>
Command make_command(std::string name, std::string group, std::string summary,
                     int (*run)(const Options&, Context&), std::vector<std::string> examples = {}) {
  Command command{
      std::move(name), std::move(summary), std::move(group), std::move(examples), false, {}};
  command.make = [run] {
    auto options = std::make_shared<Options>();
    Command::Instance instance;
    instance.owner = options;
    instance.list = describe(*options);
    instance.run = [options, run](Context& context) { return run(*options, context); };
    return instance;
  };
  return command;
}

/// Every option of a verb and the common ones, verb options first.
OptionList all_options(const Command::Instance& instance, CommonOptions& common);

/// All verbs in the order of `espalier --help`; listed by hand in commands.cpp, since static
/// registries are dropped by linkers. Each verb has `Command <verb>_command();` in
/// commands/<verb>.cpp, declared in commands.h.
const std::vector<Command>& all_commands();

}  // namespace espalier::cli
