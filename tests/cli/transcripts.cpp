// Runs transcripts: data files of commands with what they must print, return and leave behind
// (README.md has the form). Every file runs in a fresh folder of its own; two files run at a time.
// No Python, no network.
#ifdef __SANITIZE_ADDRESS__
// GCC 12 takes std::regex for uninitialized when it is instrumented (GCC bug 105562).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kCommandLimit{120};

struct Expectation {
  int line = 0;
  std::string kind, argument;
};

struct Step {
  int line = 0;
  std::string command;
  int exit_code = 0;
  std::vector<Expectation> expectations;
};

struct Case {
  fs::path file;
  std::vector<Step> steps;
};

struct Outcome {
  int exit_code = 0;
  std::string out, err;
};

const std::vector<std::string>& expectation_kinds() {
  static const std::vector<std::string> kinds{"out=",   "out~",      "out!",      "err=", "err~",
                                              "err!",   "out-empty", "err-empty", "json", "file",
                                              "absent", "same",      "differ"};
  return kinds;
}

std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

Case read_case(const fs::path& file) {
  Case result{file, {}};
  std::istringstream lines(read_file(file));
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (trimmed(line).empty() || line.starts_with('#')) continue;
    if (line.starts_with("$ ")) {
      result.steps.push_back({number, line.substr(2), 0, {}});
      continue;
    }
    const std::string place = format("{}:{}", file.filename().string(), number);
    if (line.starts_with("> ") &&
        !result.steps.empty()) {  // the command goes on, for here-documents
      result.steps.back().command += "\n" + line.substr(2);
      continue;
    }
    const std::string word = line.substr(0, line.find(' '));
    const std::string rest =
        line.size() > word.size() ? line.substr(word.size() + 1) : std::string();
    if (result.steps.empty())
      throw Error(ErrorKind::kInput, place, "expectation before the first command");
    if (word == "exit")
      result.steps.back().exit_code = std::stoi(rest);
    else if (std::find(expectation_kinds().begin(), expectation_kinds().end(), word) !=
             expectation_kinds().end())
      result.steps.back().expectations.push_back({number, word, rest});
    else
      throw Error(ErrorKind::kInput, place, format("unknown line \"{}\"", line));
  }
  return result;
}

// ---- running
// -------------------------------------------------------------------------------------------------------

struct Environment {
  std::string programs;  // $PATH in front
  fs::path folder;
};

[[noreturn]] void exec_shell(const std::string& command, const Environment& environment,
                             const fs::path& out, const fs::path& err) {
  const auto redirect = [](const char* path, int flags, int to) {
    const int from = open(path, flags, 0644);
    if (from < 0 || dup2(from, to) < 0) _exit(126);
    close(from);
  };
  setpgid(0, 0);  // so that a command that hangs goes with its children
  if (chdir(environment.folder.c_str()) != 0) _exit(126);
  redirect("/dev/null", O_RDONLY, 0);
  redirect(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 1);
  redirect(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 2);
  const std::string path = "PATH=" + environment.programs + ":/usr/local/bin:/usr/bin:/bin";
  const std::string home = "HOME=" + environment.folder.string();
  const char* const variables[] = {path.c_str(),
                                   home.c_str(),
                                   "LC_ALL=C.UTF-8",
                                   "TERM=dumb",
                                   "OMP_WAIT_POLICY=passive",  // two stories share the cores
                                   nullptr};
  const char* const words[] = {"bash", "-o", "pipefail", "-c", command.c_str(), nullptr};
  execve("/bin/bash", const_cast<char* const*>(words), const_cast<char* const*>(variables));
  _exit(127);
}

Outcome run(const std::string& command, const Environment& environment) {
  const fs::path out = environment.folder.string() + ".stdout",
                 err = environment.folder.string() + ".stderr";
  const pid_t child = fork();
  if (child < 0) throw Error(ErrorKind::kResource, "fork", std::strerror(errno));
  if (child == 0) exec_shell(command, environment, out, err);
  const Clock::time_point end = Clock::now() + kCommandLimit;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (Clock::now() > end) {
      kill(-child, SIGKILL);
      waitpid(child, &status, 0);
      return {-1, read_file(out), read_file(err) + "\n(stopped: it ran too long)\n"};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, read_file(out), read_file(err)};
}

// ---- checking
// ------------------------------------------------------------------------------------------------------

bool has_line(const std::string& text, const std::string& wanted) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (line == wanted) return true;
  return false;
}

bool matches(const std::string& text, const std::string& pattern) {
  return std::regex_search(text,
                           std::regex(pattern, std::regex::ECMAScript | std::regex::multiline));
}

// "json": one document; "json /pointer": and that is there; "json /pointer = VALUE": with this
// value; "json /pointer ~ REGEX": whose text matches.
std::string check_json(const std::string& out, const std::string& argument) {
  Json document;
  try {
    document = parse_json(out, "stdout");
  } catch (const Error& error) {
    return format("stdout is not one JSON document: {}", error.what());
  }
  if (argument.empty()) return {};
  const std::size_t space = argument.find(' ');
  const Json::json_pointer pointer(argument.substr(0, space));
  if (!document.contains(pointer)) return format("the JSON has no {}", argument.substr(0, space));
  if (space == std::string::npos) return {};
  const Json& value = document[pointer];
  const char relation = argument.at(space + 1);
  const std::string wanted = argument.substr(space + 3);
  const std::string found = value.is_string() ? value.get<std::string>() : value.dump();
  if (relation == '=' && value == parse_json(wanted, "expectation")) return {};
  if (relation == '~' && matches(found, wanted)) return {};
  return format("{} is {}", argument.substr(0, space), value.dump());
}

bool present(const fs::path& path) { return fs::exists(fs::symlink_status(path)); }

std::string check_files(const Expectation& expectation, const fs::path& folder) {
  if (expectation.kind == "file")
    return present(folder / expectation.argument) ? "" : "the file is not there";
  if (expectation.kind == "absent")
    return present(folder / expectation.argument) ? "it is there" : "";
  const std::size_t space = expectation.argument.find(' ');
  const fs::path a = folder / expectation.argument.substr(0, space),
                 b = folder / expectation.argument.substr(space + 1);
  if (!present(a) || !present(b)) return "one of the two files is not there";
  const bool equal = read_file(a) == read_file(b);
  return equal == (expectation.kind == "same") ? ""
         : equal                               ? "the files are equal"
                                               : "the files differ";
}

std::string check(const Expectation& expectation, const Outcome& outcome, const fs::path& folder) {
  const std::string& kind = expectation.kind;
  if (kind == "json") return check_json(outcome.out, expectation.argument);
  if (kind == "file" || kind == "absent" || kind == "same" || kind == "differ")
    return check_files(expectation, folder);
  const std::string& text = kind.starts_with("out") ? outcome.out : outcome.err;
  switch (kind[3]) {
    case '=':
      return has_line(text, expectation.argument) ? "" : "no such line";
    case '~':
      return matches(text, expectation.argument) ? "" : "no match";
    case '!':
      return matches(text, expectation.argument) ? "matches, but must not" : "";
    default:
      return text.empty() ? "" : "something was printed";
  }
}

std::string indented(const std::string& text) {
  std::string out;
  std::istringstream lines(text.substr(0, 4000));
  for (std::string line; std::getline(lines, line);) out += "      | " + line + "\n";
  return out;
}

// The report of a failed step; empty when all is as expected.
std::string run_step(const Step& step, const Environment& environment) {
  const Outcome outcome = run(step.command, environment);
  std::string problems;
  if (outcome.exit_code != step.exit_code)
    problems += format("    exit code {}, expected {}\n", outcome.exit_code, step.exit_code);
  for (const Expectation& expectation : step.expectations) {
    std::string problem;
    try {
      problem = check(expectation, outcome, environment.folder);
    } catch (const std::exception& error) {
      problem = error.what();
    }
    if (!problem.empty())
      problems += format("    line {}: {} {}: {}\n", expectation.line, expectation.kind,
                         expectation.argument, problem);
  }
  if (problems.empty()) return {};
  return format("  line {}: $ {}\n{}    stdout:\n{}    stderr:\n{}", step.line, step.command,
                problems, indented(outcome.out), indented(outcome.err));
}

struct Runner {
  std::string programs;
  fs::path work;
  std::mutex printing;
  std::atomic<int> failed{0}, commands{0};

  void run_case(const Case& transcript) {
    const Clock::time_point start = Clock::now();
    const Environment environment{programs, work / transcript.file.stem()};
    fs::remove_all(environment.folder);
    fs::create_directories(environment.folder);
    std::string report;
    for (const Step& step : transcript.steps) {
      ++commands;
      report += run_step(step, environment);
      if (!report.empty()) break;  // what follows builds on it
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const std::scoped_lock lock(printing);
    std::printf("%-6s %-28s %5.2f s\n%s", report.empty() ? "ok" : "FAILED",
                transcript.file.stem().c_str(), seconds, report.c_str());
    std::fflush(stdout);
    if (!report.empty())
      ++failed;
    else
      fs::remove_all(environment.folder);
  }
};

// "build:build/tests" -> the same, whatever folder a command runs in.
std::string absolute_folders(const std::string& folders) {
  std::istringstream parts(folders);
  std::string path;
  for (std::string part; std::getline(parts, part, ':');)
    path += (path.empty() ? "" : ":") + fs::absolute(part).lexically_normal().string();
  return path;
}

int run_all(const std::string& programs, const fs::path& cases, const fs::path& work,
            const std::string& filter) {
  std::vector<Case> transcripts;
  for (const auto& entry : fs::directory_iterator(cases)) {
    if (entry.path().extension() == ".txt" &&
        entry.path().stem().string().find(filter) != std::string::npos)
      transcripts.push_back(read_case(entry.path()));
  }
  std::sort(transcripts.begin(), transcripts.end(),
            [](const Case& a, const Case& b) { return a.file < b.file; });
  if (transcripts.empty())
    throw Error(ErrorKind::kInput, cases.string(), format("no transcript matches \"{}\"", filter));
  Runner runner{absolute_folders(programs), fs::absolute(work), {}, 0, 0};
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < 2; ++i) {
    workers.emplace_back([&] {
      for (std::size_t k; (k = next++) < transcripts.size();) runner.run_case(transcripts[k]);
    });
  }
  for (std::thread& worker : workers) worker.join();
  std::printf("%zu transcripts, %d commands, %d failed\n", transcripts.size(),
              runner.commands.load(), runner.failed.load());
  return runner.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(
        stderr,
        "usage: cli_transcripts PROGRAM_FOLDERS CASES_FOLDER WORK_FOLDER [PART_OF_A_NAME]\n");
    return 2;
  }
  try {
    return espalier::run_all(argv[1], argv[2], argv[3], argc > 4 ? argv[4] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
