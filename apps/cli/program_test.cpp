// Verbs, quoting, failures, help, man pages and completion, for the sample verb and for every real
// one.
#include "apps/cli/program.h"

#include <filesystem>
#include <new>
#include <set>

#include <gtest/gtest.h>

#include <c10/util/Exception.h>

#include "espalier/base/json_internal.h"

#include "apps/cli/completion.h"
#include "apps/cli/failure.h"
#include "apps/cli/help.h"
#include "apps/cli/machine.h"
#include "apps/cli/man.h"
#include "apps/cli/parse.h"
#include "apps/cli/recipe.h"
#include "apps/cli/sample_options_internal.h"

namespace espalier::cli {
namespace {

int run_nothing(const SampleOptions&, Context&) { return 0; }

std::vector<Command> sample_commands() {
  return {
      make_command<SampleOptions>("prune", "Shrink", "remove layers; it's [safe]: really",
                                  run_nothing, {"espalier prune M --out O"}),
      make_command<SampleOptions>("graph train", "Graphs", "train on a graph", run_nothing),
      make_command<SampleOptions>("graph predict", "Graphs", "predict on a graph", run_nothing)};
}

std::string find_failure(const std::vector<std::string>& words) {
  const std::vector<Command> commands = sample_commands();
  try {
    find_command(commands, words);
  } catch (const Error& error) {
    return std::string(error.what()) + " | " + error.hint_text();
  }
  return "found";
}

TEST(FindCommand, OneAndTwoWords) {
  const std::vector<Command> commands = sample_commands();
  EXPECT_EQ(find_command(commands, {"prune", "x"}).words, 1u);
  const FoundCommand found = find_command(commands, {"graph", "predict", "x"});
  EXPECT_EQ(found.command->name, "graph predict");
  EXPECT_EQ(found.words, 2u);
  EXPECT_EQ(find_failure({"prnue"}), "prnue: unknown verb | did you mean `espalier prune`?");
  EXPECT_EQ(find_failure({"xyzzy"}), "xyzzy: unknown verb | `espalier --help` lists the verbs");
  EXPECT_EQ(find_failure({"graph"}),
            "graph: needs one of: train, predict | write `espalier graph train`");
  EXPECT_EQ(find_failure({"graph", "predcit"}),
            "graph: needs one of: train, predict | write `espalier graph predict`");
}

TEST(ShellQuoted, ReadsBack) {
  EXPECT_EQ(shell_quoted({"espalier", "prune", "a b", "it's", "", "--remove=1,2"}),
            "espalier prune 'a b' 'it'\\''s' '' --remove=1,2");
  EXPECT_EQ(shell_quoted({"$(rm)", "*", "a;b"}), "'$(rm)' '*' 'a;b'");
}

// ---- failures
// ------------------------------------------------------------------------------------------------------

template <class Thrower>
Failure failure_of(Thrower&& thrower, bool debug = false) {
  try {
    thrower();
  } catch (...) {
    return describe_failure(std::current_exception(), debug);
  }
  return {0, "nothing thrown"};
}

TEST(DescribeFailure, EveryKindHasItsExitCode) {
  for (const ErrorKind kind :
       {ErrorKind::kUsage, ErrorKind::kInput, ErrorKind::kUnsupported, ErrorKind::kResource,
        ErrorKind::kEnvironment, ErrorKind::kInternal}) {
    const Failure failure = failure_of([&] { throw Error(kind, "x", "is wrong").hint("mend it"); });
    EXPECT_EQ(failure.exit_code, static_cast<int>(kind));
    EXPECT_EQ(failure.text, "error: x: is wrong\n  hint:  mend it\n");
  }
  EXPECT_EQ(failure_of([] { throw std::bad_alloc(); }).exit_code, 5);
  EXPECT_EQ(
      failure_of([] { throw Interrupted{"checkpoint at step 3; go on with --resume"}; }).exit_code,
      130);
  EXPECT_EQ(failure_of([] { throw Interrupted{"step 3"}; }).text, "interrupted: step 3\n");
  EXPECT_EQ(failure_of([] { throw Interrupted{}; }).text, "interrupted: nothing was kept\n");
  EXPECT_EQ(failure_of([] { throw std::runtime_error("odd"); }).exit_code, 70);
  EXPECT_EQ(failure_of([] { throw 7; }).exit_code, 70);
}

TEST(DescribeFailure, TranslatesLibtorch) {
  const Failure bug = failure_of([] { TORCH_CHECK(false, "shapes 3 and 4\nmore lines"); });
  EXPECT_EQ(bug.exit_code, 70);
  EXPECT_EQ(bug.text.substr(0, 35), "error: libtorch: shapes 3 and 4\n  h");
  EXPECT_NE(bug.text.find("please report"), std::string::npos);
  EXPECT_EQ(bug.text.find("frame #"), std::string::npos);
  const Failure memory = failure_of([] {
    TORCH_CHECK(false, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes");
  });
  EXPECT_EQ(memory.exit_code, 5);
  EXPECT_NE(memory.text.find("--dtype bfloat16"), std::string::npos);
  EXPECT_EQ(failure_of([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA"); }).exit_code, 5);
  const Failure debugged = failure_of([] { TORCH_CHECK(false, "x"); }, true);
  EXPECT_NE(debugged.text.find("thrown as: c10::Error"), std::string::npos);
}

TEST(DescribeFailure, FileSystemErrors) {
  const auto thrower = [](std::errc code) {
    return [code] {
      throw std::filesystem::filesystem_error("cannot", "/some/where", std::make_error_code(code));
    };
  };
  EXPECT_EQ(failure_of(thrower(std::errc::no_space_on_device)).exit_code, 5);
  EXPECT_EQ(failure_of(thrower(std::errc::read_only_file_system)).exit_code, 5);
  EXPECT_EQ(failure_of(thrower(std::errc::permission_denied)).text.substr(0, 38),
            "error: /some/where: Permission denied\n");
  EXPECT_EQ(failure_of(thrower(std::errc::invalid_argument)).exit_code, 70);
}

TEST(DescribeFailure, DebugNamesThePlace) {
  const Failure failure = failure_of([] { throw Error(ErrorKind::kInput, "x", "y"); }, true);
  EXPECT_NE(failure.text.find("thrown at: apps/cli/program_test.cpp:"), std::string::npos)
      << failure.text;
}

TEST(DescribeFailure, ControlCharactersAreWrittenOut) {
  const Failure failure =
      failure_of([] { throw Error(ErrorKind::kInput, "\x1b[2Jname\r", "is \a odd"); });
  EXPECT_EQ(failure.text, "error: \\x1b[2Jname\\x0d: is \\x07 odd\n");
}

// ---- texts
// ---------------------------------------------------------------------------------------------------------

TEST(Help, ShowsGroupsRangesChoicesDefaults) {
  const Command command = sample_commands().front();
  const Command::Instance instance = command.make();
  CommonOptions common;
  const std::string help = verb_help(command, all_options(instance, common), {100, false});
  for (const char* part :
       {"usage: espalier prune MODEL --out PATH [flags]\n", "\nModel\n  MODEL ", "\nWhat\n",
        "\nOutput\n", "\nCommon\n", "[1 to 100; default 7]", "[auto, reverse, bi; default auto]",
        "--no-add-bos", "[required]", "  $ espalier prune M --out O\n",
        "a-b includes both ends, a:b is half-open", "[bi, ppl, angular; default bi]"})
    EXPECT_NE(help.find(part), std::string::npos) << part << "\n" << help;
  for (std::size_t start = 0, end; start < help.size(); start = end + 1) {
    end = help.find('\n', start);
    EXPECT_LE(end - start, 100u) << help.substr(start, end - start);
  }
}

TEST(Help, ProgramListsVerbsByGroup) {
  const std::string help = program_help(sample_commands(), {100, false});
  EXPECT_NE(help.find("\nShrink\n  prune "), std::string::npos);
  EXPECT_NE(help.find("\nGraphs\n  graph train "), std::string::npos);
  EXPECT_EQ(help.find('\x1b'), std::string::npos);
  EXPECT_NE(program_help(sample_commands(), {100, true}).find("\x1b[1mShrink\x1b[0m"),
            std::string::npos);
}

TEST(Help, ExplainsOneOption) {
  const Sample sample;
  const std::string text = explain_option("prune", sample.list, "--rho");
  for (const char* part : {"ratio\n", "share of layers", "flag:     --ratio X",
                           "range:    0 to 0.95", "default:  0.25", "also:     rho"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  try {
    explain_option("prune", sample.list, "rato");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.to_string(),
              "error: --explain: `espalier prune` has no option \"rato\"\n  hint:  did you mean "
              "--explain ratio?");
  }
}

TEST(Help, WrapKeepsWordsAndNewlines) {
  EXPECT_EQ(wrap("aa bb cc", 5, 2), "aa bb\n  cc");
  EXPECT_EQ(wrap("aa\nbb", 80, 1), "aa\n bb");
  EXPECT_EQ(wrap("toolongword x", 4, 0), "toolongword\nx");
  EXPECT_EQ(wrap("", 10, 2), "");
}

TEST(Man, EscapesForRoff) {
  const std::string page = verb_man_page(sample_commands().front());
  EXPECT_EQ(page.substr(0, 22), ".TH \"ESPALIER-PRUNE\" \"");
  EXPECT_NE(page.find("\\fB\\-\\-ratio\\fR \\fIX\\fR"), std::string::npos);
  EXPECT_NE(page.find(".SH \"EXIT STATUS\""), std::string::npos);
  EXPECT_NE(program_man_page(sample_commands()).find(".BR espalier\\-graph\\-train (1)"),
            std::string::npos);
}

TEST(Completion, ListsFlagsAndChoices) {
  const std::vector<Command> commands = sample_commands();
  const std::string bash = completion_script("bash", commands);
  EXPECT_NE(bash.find("compgen -W 'prune graph --help --version'"), std::string::npos);
  EXPECT_NE(bash.find("'graph train --method') COMPREPLY=($(compgen -W 'auto reverse bi'"),
            std::string::npos);
  EXPECT_NE(
      completion_script("zsh", commands).find("'--method=[layer score]:NAME:(auto reverse bi)'"),
      std::string::npos);
  EXPECT_NE(completion_script("zsh", commands).find("it'\\''s \\[safe\\]\\: really"),
            std::string::npos);
  EXPECT_NE(completion_script("fish", commands).find("-l method -x -a 'auto reverse bi'"),
            std::string::npos);
}

// ---- every real verb
// -----------------------------------------------------------------------------------------------

TEST(AllCommands, OptionsAreWellFormed) {
  std::set<std::string> verbs;
  for (const Command& command : all_commands()) {
    EXPECT_TRUE(verbs.insert(command.name).second) << command.name;
    EXPECT_FALSE(command.summary.empty()) << command.name;
    const Command::Instance instance = command.make();
    CommonOptions common;
    const OptionList options = all_options(instance, common);
    std::set<std::string> names;
    for (const Option& option : options) {
      EXPECT_TRUE(names.insert(option.flag()).second)
          << command.name << " has two options called " << option.name;
      for (const std::string& other : option.traits.aliases)
        EXPECT_TRUE(names.insert("--" + other).second) << command.name << ": alias " << other;
      EXPECT_FALSE(option.help.empty()) << command.name << " " << option.name;
      EXPECT_FALSE(option.group.empty()) << command.name << " " << option.name;
      EXPECT_EQ(option.name.find('-'), std::string::npos) << option.name << " must be snake_case";
      EXPECT_NE(option.help.back(), '.') << command.name << " " << option.name;
      if (option.default_text.empty()) continue;
      EXPECT_NO_THROW(option.set(option.default_text)) << command.name << " " << option.name;
    }
    EXPECT_NO_THROW(parse_arguments(command.name, options, {})) << command.name;
  }
}

TEST(AllCommands, EveryTextIsMade) {
  for (const Command& command : all_commands()) {
    const Command::Instance instance = command.make();
    CommonOptions common;
    const OptionList options = all_options(instance, common);
    EXPECT_GT(verb_help(command, options, {80, false}).size(), 500u);
    EXPECT_GT(verb_man_page(command).size(), 500u);
    EXPECT_TRUE(
        parse_json(json_schema(command.name, options), command.name).contains("properties"));
    for (const Option& option : options)
      EXPECT_FALSE(explain_option(command.name, options, option.name).empty());
    for (const std::string& example : command.examples)
      EXPECT_TRUE(example.starts_with("espalier " + command.name) || command.hidden) << example;
  }
}

TEST(Machine, FactsArePlausible) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_GT(memory_facts().total.count, 0);
  EXPECT_LE(memory_facts().available.count, memory_facts().total.count);
  EXPECT_GT(free_disk("/no/such/folder/yet").count, 0);
  EXPECT_FALSE(find_program("sh").empty());
  EXPECT_TRUE(find_program("no_such_program_at_all").empty());
}

}  // namespace
}  // namespace espalier::cli
