// Reading run folders, whole and damaged, and what the reports say about them.
#include "espalier/report/run_report.h"

#include <cmath>
#include <cstdlib>
#include <fstream>

#include <unistd.h>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace fs = std::filesystem;

namespace espalier {
namespace {

class RunReport : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "espalier_runs_XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }

  void make_run(const std::string& name, const std::string& state, int seed) const {
    write(
        name + "/run/manifest.json",
        R"({"tool":"espalier","version":"0.1.0","commit":"abc","verb":"finetune","command":"espalier finetune <m>",)"
        R"("seed":)" +
            std::to_string(seed) +
            R"(,"device":"cpu","threads":2,"host":{"cpu":"Xeon"},"state":")" + state +
            R"(","started":"2026-01-01T00:00:00Z","wall_seconds":12.5,"peak_rss_bytes":1073741824,)"
            R"("inputs":[{"path":"m","bytes":5,"digest":null}],"outputs":[{"path":"w","bytes":7,"digest":"xxh3:1"}],)"
            R"("facts":{"predicted_peak_bytes":123},"recipe":"lr: 1e-4\nsteps: )" +
            std::to_string(10 * seed) + R"(\n"})");
    write(name + "/run/metrics.jsonl",
          "{\"step\":0,\"loss\":4.5,\"lr\":1e-4}\n{\"step\":1,\"loss\":null}\n{\"step\":2,\"loss\":"
          "3.5}\n{\"step\":3,\"lo");
  }

  std::string message_of(const fs::path& path) const {
    try {
      find_runs(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_FALSE(error.hint_text().empty());
      return error.message();
    }
    return "";
  }

  fs::path root_;
};

TEST_F(RunReport, FindsRunsWhereverTheUserPoints) {
  make_run("sweep/b", "finished", 1);
  make_run("sweep/a", "finished", 2);
  make_run("sweep/deep/er/c", "finished", 3);
  make_run("sweep/much/too/deep/for/us", "finished", 4);
  make_run("lone.partial", "interrupted", 5);
  const std::vector<fs::path> all{root_ / "sweep/a", root_ / "sweep/b", root_ / "sweep/deep/er/c"};
  EXPECT_EQ(find_runs(root_ / "sweep"), all);
  EXPECT_EQ(find_runs(root_ / "sweep/"), all);
  EXPECT_EQ(find_runs(root_ / "sweep/a"), std::vector{root_ / "sweep/a"});
  EXPECT_EQ(find_runs(root_ / "sweep/a/run"), std::vector{root_ / "sweep/a"});
  EXPECT_EQ(find_runs(root_ / "lone"), std::vector{root_ / "lone.partial"})
      << "only the interrupted run is there";
  EXPECT_NE(message_of(root_ / "none").find("does not exist"), std::string::npos);
  EXPECT_NE(message_of(root_ / "sweep/a/run/manifest.json").find("is a file"), std::string::npos);
  fs::create_directory(root_ / "empty");
  EXPECT_NE(message_of(root_ / "empty").find("holds no run"), std::string::npos);
}

TEST_F(RunReport, ReadsEverythingARunLeft) {
  make_run("out", "finished", 7);
  write(
      "out/espalier_pruning.json",
      R"({"method":"angular","layers_before":4,"kept":[0,3],"removed":[1,2],"scores":{"bi":[0.1,0.2,null,0.4]}})");
  write("out/scores.json",
        R"({"n_layers":4,"metrics":{"bi":[9,9,9,9],"ppl":[5,6,7,8]},"cka":[[1,0.5],[0.5,1]]})");
  const RunRecord run = load_run(root_ / "out");
  EXPECT_TRUE(run.problems.empty());
  EXPECT_EQ(run.verb, "finetune");
  EXPECT_EQ(run.seed, "7");
  EXPECT_EQ(run.cpu, "Xeon");
  EXPECT_EQ(run.peak_rss_bytes, 1 << 30);
  EXPECT_EQ(run.inputs.size(), 1u);
  EXPECT_EQ(run.outputs[0].digest, "xxh3:1");
  EXPECT_EQ(run.facts[0].second, "123");
  ASSERT_EQ(run.metrics.size(), 2u);
  EXPECT_EQ(run.metrics[0].name, "loss");
  EXPECT_EQ(run.metrics[0].x, (std::vector<double>{0, 1, 2})) << "the torn last line is left out";
  EXPECT_TRUE(std::isnan(run.metrics[0].y[1]));
  EXPECT_EQ(run.removed, (std::vector<int>{1, 2}));
  ASSERT_EQ(run.scores.size(), 2u);
  EXPECT_EQ(run.scores[0].y[0], 0.1) << "what pruning recorded wins";
  EXPECT_EQ(run.scores[1].name, "ppl");
  EXPECT_EQ(run.cka.size(), 2u);

  const std::string html = run_report({run}).html();
  for (const char* part :
       {"finetune: out", "4 → 2", "4.5 → 3.5", "2 of 4 layers are removed, chosen by angular: 1-2.",
        "1.00 GiB", "Loss", "CKA between layers", "espalier finetune &lt;m&gt;", "lr: 1e-4"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
}

TEST_F(RunReport, CsvIsEnough) {
  write("out/run/metrics.csv", "step,\"loss, a\",b\n0,1.5,\n1,nan,2\n");
  const RunRecord run = load_run(find_runs(root_ / "out").front());
  ASSERT_EQ(run.metrics.size(), 2u);
  EXPECT_EQ(run.metrics[0].name, "loss, a");
  EXPECT_TRUE(std::isnan(run.metrics[0].y[1]));
  EXPECT_EQ(run.metrics[1].x, std::vector<double>{1});
  EXPECT_NE(run_report({run}).html().find("loss, a"), std::string::npos);
}

TEST_F(RunReport, DamagedFilesAreNamedNotFatal) {
  write("out/run/manifest.json", "{ broken");
  write("out/run/metrics.jsonl", "{\"step\":0,\"loss\":1}\nnot json\n");
  write("out/espalier_pruning.json", "[1]");
  write("out/scores.json",
        R"({"n_layers":1e300,"metrics":{"bi":{"not":"a list"}},"cka":[1,"x",[null]]})");
  const RunRecord run = load_run(root_ / "out");
  EXPECT_EQ(run.problems.size(), 3u);
  ASSERT_EQ(run.metrics.size(), 1u);
  EXPECT_EQ(run.metrics[0].y, std::vector<double>{1});
  const std::string html = run_report({run}).html();
  EXPECT_NE(html.find("Left out: "), std::string::npos);
}

TEST_F(RunReport, KeptListAloneTellsWhatWasRemoved) {
  make_run("out", "finished", 1);
  write("out/espalier_pruning.json", R"({"metric":"bi","layers_before":6,"kept":[0,1,4,5]})");
  const RunRecord run = load_run(root_ / "out");
  EXPECT_EQ(run.method, "bi");
  EXPECT_EQ(run.removed, (std::vector<int>{2, 3}));
}

TEST_F(RunReport, SeveralRunsSideBySide) {
  make_run("x/out", "finished", 1);
  make_run("y/out", "interrupted", 2);
  make_run("z", "running", 3);
  std::vector<RunRecord> runs;
  for (const fs::path& folder : find_runs(root_)) runs.push_back(load_run(folder));
  name_runs(runs);
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].name, "x/out");
  EXPECT_EQ(runs[1].name, "y/out");
  EXPECT_EQ(runs[2].name, "z");
  const ReportTable table = run_table(runs);
  EXPECT_EQ(table.columns.back(), "last loss");
  EXPECT_EQ(table.rows[0][8], "3.5");
  EXPECT_EQ(table.rows[1][2], "interrupted");
  EXPECT_EQ(table.rows[2][2], "not finished");
  const std::string html = run_report(runs).html();
  for (const char* part : {"3 runs side by side", "Settings that differ", "<td>steps</td>",
                           "y/out was interrupted", "z has not finished", "x/out</text>"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(html.find("<td>lr</td>"), std::string::npos) << "equal settings are not listed";
}

}  // namespace
}  // namespace espalier
