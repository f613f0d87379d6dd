// One run of the program, from words to exit code; see program.h.
#include "apps/cli/program.h"

#include <csignal>

#include <unistd.h>

#include <malloc.h>

#include <ATen/Parallel.h>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/run/build_info.h"
#include "espalier/run/console_reporter.h"

#include "apps/cli/failure.h"
#include "apps/cli/help.h"
#include "apps/cli/machine.h"
#include "apps/cli/output.h"
#include "apps/cli/parse.h"
#include "apps/cli/recipe.h"
#include "apps/cli/resolve.h"

namespace espalier::cli {

namespace {

HelpStyle help_style() { return {output_width(), wants_colour(STDOUT_FILENO)}; }

std::string version_text() {
  const BuildInfo& info = build_info();
  std::string text = format("espalier {}", info.version);
  if (!info.commit.empty()) text += format(" ({})", info.commit);
  return text + format("\nlibtorch {}\n", info.libtorch_version.empty() ? "of unknown version"
                                                                        : info.libtorch_version);
}

std::vector<std::string> command_names(const std::vector<Command>& commands) {
  std::vector<std::string> names;
  for (const Command& command : commands)
    if (!command.hidden) names.push_back(command.name);
  return names;
}

void print_verb_help(const Command& command) {
  const Command::Instance instance = command.make();
  CommonOptions common;
  write_stdout(verb_help(command, all_options(instance, common), help_style()));
}

// Writes the result once, in the form that --json asks for, and the JSON document to --save-json.
class ResultPrinter {
 public:
  ResultPrinter(bool json, std::string json_file) : json_(json), json_file_(std::move(json_file)) {}
  void operator()(const std::string& text, const std::string& json) {
    ESPALIER_ASSERT(!printed_);
    printed_ = true;
    if (!json_file_.empty())
      write_file_atomically(json_file_, json.ends_with('\n') ? json : json + '\n');
    std::string out = json_ ? json : text;
    if (!out.empty() && out.back() != '\n') out += '\n';
    write_stdout(out);
  }

 private:
  bool json_;
  std::string json_file_;
  bool printed_ = false;
};

// A forward pass frees and asks for the same few buffers in every layer. glibc would hand each back
// to the kernel and get it again page by page: 10 % of the time of a 135M model's blocks.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  mallopt(M_TOP_PAD, 16 << 20);
#endif
}

int run_verb(const Command::Instance& instance, const CommonOptions& common,
             const std::string& command_line, const std::string& recipe) {
  at::set_num_threads(static_cast<int>(common.threads > 0 ? common.threads : usable_cores()));
  keep_freed_memory();
  const StopToken& stop = install_signal_stop();
  const std::unique_ptr<Reporter> reporter = make_console_reporter(
      parse_progress_style(common.progress), parse_log_level(common.log_level));
  ResultPrinter printer(common.json, common.save_json);
  Context context{common, *reporter, stop, command_line, recipe, std::ref(printer)};
  return instance.run(context);
}

int run_command(const Command& command, const std::vector<std::string>& words,
                const std::string& command_line, bool& debug) {
  const Command::Instance instance = command.make();
  CommonOptions common;
  const OptionList options = all_options(instance, common);
  const ParsedArguments parsed = parse_arguments(command.name, options, words);
  if (parsed.help) {
    write_stdout(verb_help(command, options, help_style()));
    return 0;
  }
  if (!parsed.explain.empty()) {
    write_stdout(explain_option(command.name, options, parsed.explain));
    return 0;
  }
  if (parsed.json_schema) {
    OptionList in_recipes = options;
    std::erase_if(in_recipes, [](const Option& option) { return !is_recipe_option(option); });
    write_stdout(json_schema("recipe of espalier " + command.name, in_recipes));
    return 0;
  }
  for (const auto& [option, text] : parsed.values)
    if (option->name == "debug") debug = text == "true";
  resolve_options(command.name, command_names(all_commands()), options, parsed);
  debug = common.debug;
  const std::string recipe = recipe_text(command.name, options);
  if (common.print_recipe) {
    write_stdout(recipe);
    return 0;
  }
  check_required(command.name, options);
  return run_verb(instance, common, command_line, recipe);
}

// What stands where the verb should: help, version, or nothing at all. False when it is a verb.
bool run_without_verb(const std::vector<std::string>& arguments, int& exit_code) {
  const std::vector<Command>& commands = all_commands();
  exit_code = 0;
  if (arguments.empty()) {
    write_stderr(program_help(commands, {output_width(), wants_colour(STDERR_FILENO)}));
    exit_code = static_cast<int>(ErrorKind::kUsage);
    return true;
  }
  const std::string& first = arguments.front();
  if (first == "--version" || first == "-V" || first == "version") {
    write_stdout(version_text());
  } else if (first == "--help" || first == "-h" || (first == "help" && arguments.size() == 1)) {
    write_stdout(program_help(commands, help_style()));
  } else if (first == "help") {
    print_verb_help(*find_command(commands, {arguments.begin() + 1, arguments.end()}).command);
  } else if (first.starts_with('-')) {
    throw Error(ErrorKind::kUsage, first, "stands before the verb")
        .hint("write espalier VERB [flags]; `espalier --help` lists the verbs");
  } else {
    return false;
  }
  return true;
}

int run_words(const std::vector<std::string>& arguments, bool& debug) {
  int exit_code = 0;
  if (run_without_verb(arguments, exit_code)) return exit_code;
  const FoundCommand found = find_command(all_commands(), arguments);
  std::vector<std::string> all{"espalier"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run_command(
      *found.command,
      {arguments.begin() + static_cast<std::ptrdiff_t>(found.words), arguments.end()},
      shell_quoted(all), debug);
}

}  // namespace

OptionList all_options(const Command::Instance& instance, CommonOptions& common) {
  OptionList options = instance.list;
  OptionList more = describe(common);
  options.insert(options.end(), std::make_move_iterator(more.begin()),
                 std::make_move_iterator(more.end()));
  return options;
}

FoundCommand find_command(const std::vector<Command>& commands,
                          const std::vector<std::string>& arguments) {
  const std::string& first = arguments.front();
  if (arguments.size() > 1) {
    const std::string two = first + " " + arguments[1];
    for (const Command& command : commands)
      if (command.name == two) return {&command, 2};
  }
  std::vector<std::string> names, seconds;
  for (const Command& command : commands) {
    if (command.name == first) return {&command, 1};
    if (command.name.starts_with(first + " "))
      seconds.push_back(command.name.substr(first.size() + 1));
    if (!command.hidden) names.push_back(command.name);
  }
  if (!seconds.empty()) {
    std::string list;
    for (const std::string& second : seconds) list += (list.empty() ? "" : ", ") + second;
    const std::string near = arguments.size() > 1 ? nearest(arguments[1], seconds) : std::string();
    throw Error(ErrorKind::kUsage, first, format("needs one of: {}", list))
        .hint(format("write `espalier {} {}`", first, near.empty() ? seconds.front() : near));
  }
  const std::string near = nearest(first, names);
  throw Error(ErrorKind::kUsage, first, "unknown verb")
      .hint(near.empty() ? "`espalier --help` lists the verbs"
                         : format("did you mean `espalier {}`?", near));
}

std::string shell_quoted(const std::vector<std::string>& words) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_not_of(kSafe) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

int run_program(const std::vector<std::string>& arguments) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error code of write, not a death
  bool debug = false;
  try {
    return run_words(arguments, debug);
  } catch (const BrokenPipe&) {
    return 0;
  } catch (...) {
    const Failure failure = describe_failure(std::current_exception(), debug);
    write_stderr(failure.text);
    return failure.exit_code;
  }
}

}  // namespace espalier::cli
