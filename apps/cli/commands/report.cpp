// `espalier report`: redraws the report of a run, or puts several runs side by side, from what
// their folders hold.
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/report/run_report.h"

#include "apps/cli/commands.h"

namespace fs = std::filesystem;

namespace espalier::cli {
namespace {

struct ReportOptions {
  std::vector<std::string> runs;
  std::string out, title;
  bool overwrite = false;

  template <class V>
  void visit(V&& option) {
    option.group("Report");
    option("runs", runs,
           "run folders, or folders of run folders, finished or interrupted; results saved with "
           "--save-json (FILE.json) are shown above them",
           positional("RUN_OR_DIR") | required());
    option("out", out,
           "the HTML file to write; left out: run/report.html of a single run, report.html of a "
           "folder of runs",
           placeholder("FILE"));
    option("title", title, "heading of the report", placeholder("TEXT"));
    option("overwrite", overwrite, "replace --out even when espalier did not write it");
  }
};

/// A report may be redrawn as often as one likes; any other file needs --overwrite.
void check_replaceable(const fs::path& out, bool overwrite) {
  std::error_code ignored;
  if (!fs::exists(out, ignored) || overwrite) return;
  bool ours = false;
  if (fs::is_regular_file(out, ignored)) {
    ours =
        read_file(out).find("<meta name=\"generator\" content=\"espalier\">") != std::string::npos;
  }
  if (!ours) {
    throw Error(ErrorKind::kUsage, out.string(), "exists and is not a report of espalier")
        .hint("add --overwrite to replace it, or choose another --out");
  }
}

bool is_document(const std::string& argument) {
  std::error_code ignored;
  return argument.ends_with(".json") && fs::is_regular_file(argument, ignored);
}

std::vector<SavedResult> all_results(const std::vector<std::string>& arguments) {
  std::vector<SavedResult> results;
  for (const std::string& argument : arguments)
    if (is_document(argument)) results.push_back(load_saved_result(argument));
  return results;
}

std::vector<fs::path> all_runs(const std::vector<std::string>& arguments) {
  std::vector<fs::path> folders;
  std::set<fs::path> seen;
  for (const std::string& argument : arguments) {
    if (is_document(argument)) continue;
    for (const fs::path& folder : find_runs(argument)) {
      std::error_code error;
      const fs::path resolved = fs::weakly_canonical(folder, error);
      if (seen.insert(error ? folder : resolved).second) folders.push_back(folder);
    }
  }
  return folders;
}

fs::path default_out(const ReportOptions& options, const std::vector<fs::path>& folders) {
  if (folders.size() == 1) return folders.front() / "run" / "report.html";
  if (options.runs.size() == 1) return fs::path(options.runs.front()) / "report.html";
  throw Error(ErrorKind::kUsage, "--out", "is needed for several runs")
      .hint("add --out report.html");
}

int run_report_verb(const ReportOptions& options, Context& context) {
  const std::vector<fs::path> folders = all_runs(options.runs);
  if (folders.empty()) {
    throw Error(ErrorKind::kUsage, "RUN_OR_DIR",
                "only saved results are given, expected a run folder as well")
        .hint("add the --out folder of a prune or finetune run");
  }
  const std::vector<SavedResult> results = all_results(options.runs);
  const fs::path out = options.out.empty() ? default_out(options, folders) : fs::path(options.out);
  std::error_code ignored;
  if (fs::is_directory(out, ignored)) {
    throw Error(ErrorKind::kUsage, out.string(), "is a folder, expected a file to write")
        .hint(format("--out {}", (out / "report.html").string()));
  }
  check_replaceable(out, options.overwrite);

  std::vector<RunRecord> runs;
  {
    const auto phase =
        context.reporter.phase("reading runs", static_cast<std::int64_t>(folders.size()), "runs");
    for (const fs::path& folder : folders) {
      runs.push_back(load_run(folder));
      for (const std::string& problem : runs.back().problems) context.reporter.warn(problem);
      phase->update(static_cast<std::int64_t>(runs.size()));
    }
  }
  name_runs(runs);
  if (out.has_parent_path()) fs::create_directories(out.parent_path(), ignored);
  run_report(runs, results, options.title).write(out);

  const ReportTable table = run_table(runs);
  Json json = Json::object();
  json["schema"] = "espalier.report/1";
  json["out"] = out.string();
  json["runs"] = Json::array();
  for (const RunRecord& run : runs) {
    Json entry = Json::object();
    entry["name"] = run.name;
    entry["folder"] = run.folder.string();
    entry["state"] = run.state;
    json["runs"].push_back(std::move(entry));
  }
  context.print_result(text_table(table.columns, table.rows) + "\nreport: " + out.string() + "\n",
                       dump_json(json));
  return 0;
}

}  // namespace

Command report_command() {
  return make_command<ReportOptions>(
      "report", "Files", "redraw the report of a run, or compare several runs", run_report_verb,
      {"espalier report out/pruned", "espalier report out/ --out compare.html",
       "espalier report runs/a runs/b.partial --out compare.html --json"});
}

}  // namespace espalier::cli
