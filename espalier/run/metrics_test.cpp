// The three metric files: exact text, growth, kills, truncation for resume.
#include <cmath>
#include <limits>

#include <signal.h>

#include <gtest/gtest.h>

#include "espalier/base/file.h"
#include "espalier/run/metrics_internal.h"
#include "espalier/run/tensorboard_events_internal.h"
#include "espalier/run/test_support_internal.h"

namespace fs = std::filesystem;

namespace espalier::run_internal {
namespace {

using run_test::in_child;
using run_test::read_text;
using run_test::TempFolder;
using run_test::write_text;

fs::path events_file(const fs::path& dir) {
  fs::path found;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (!entry.path().filename().string().starts_with("events.out.tfevents.")) continue;
    found = entry.path();
    ++count;
  }
  EXPECT_EQ(count, 1);
  return found;
}

/// Records in an event file, the header included.
int count_records(const std::string& bytes) {
  int count = 0;
  for (std::size_t at = 0; at + 16 <= bytes.size(); ++count) {
    at += 16 + static_cast<unsigned char>(bytes[at]) +
          256u * static_cast<unsigned char>(bytes[at + 1]);
  }
  return count;
}

TEST(MetricSinks, RowsAreExact) {
  const TempFolder tmp;
  MetricSinks sinks(tmp.path());
  sinks.row(0, {{"loss", 3.25}, {"lr", 1e-5}});
  sinks.row(1, {{"lr", 0.1}, {"loss", std::nan("")}});
  sinks.row(2, {{"loss", std::numeric_limits<double>::infinity()}});
  EXPECT_EQ(read_text(tmp / "metrics.jsonl"),
            "{\"step\":0,\"loss\":3.25,\"lr\":1e-05}\n"
            "{\"step\":1,\"lr\":0.1,\"loss\":null}\n"
            "{\"step\":2,\"loss\":null}\n");
  EXPECT_EQ(read_text(tmp / "metrics.csv"), "step,loss,lr\n0,3.25,1e-05\n1,nan,0.1\n2,inf,\n");
  EXPECT_EQ(count_records(read_text(events_file(tmp.path()))), 4);
}

TEST(MetricSinks, NewColumnsRewriteTheCsv) {
  const TempFolder tmp;
  MetricSinks sinks(tmp.path());
  sinks.row(1, {{"loss", 1}});
  sinks.row(2, {{"loss", 2}, {"eval, held-out", 5}, {"say \"x\"\n", 6}});
  sinks.row(3, {{"eval, held-out", 7}});
  EXPECT_EQ(read_text(tmp / "metrics.csv"),
            "step,loss,\"eval, held-out\",\"say \"\"x\"\" \"\n1,1,,\n2,2,5,6\n3,,7,\n");
  MetricSinks again(tmp.path());  // a resumed run knows the columns
  again.row(4, {{"say \"x\"\n", 8}, {"loss", 9}});
  EXPECT_NE(read_text(tmp / "metrics.csv").find("\n4,9,,8\n"), std::string::npos);
  EXPECT_EQ(count_records(read_text(events_file(tmp.path()))), 5)
      << "one header, four rows, one file";
}

TEST(MetricSinks, CsvFieldsRoundTrip) {
  for (const std::string text : {"plain", "a,b", "\"", "a\"\"b,", ""}) {
    EXPECT_EQ(split_csv_line(csv_field(text)), std::vector<std::string>{text});
  }
  EXPECT_EQ(split_csv_line("a,,\"b,c\","), (std::vector<std::string>{"a", "", "b,c", ""}));
}

TEST(MetricSinks, TruncateDropsLaterStepsEverywhere) {
  const TempFolder tmp;
  MetricSinks sinks(tmp.path());
  for (int step = 0; step < 10; ++step) sinks.row(step, {{"loss", step}});
  const std::string after_five = [&] {
    const TempFolder other;
    MetricSinks reference(other.path());
    for (int step = 0; step < 5; ++step) reference.row(step, {{"loss", step}});
    return read_text(other / "metrics.jsonl");
  }();
  sinks.truncate(5);
  EXPECT_EQ(read_text(tmp / "metrics.jsonl"), after_five);
  EXPECT_EQ(count_records(read_text(events_file(tmp.path()))), 6);
  sinks.row(5, {{"loss", 50}});
  EXPECT_EQ(read_text(tmp / "metrics.csv"), "step,loss\n0,0\n1,1\n2,2\n3,3\n4,4\n5,50\n");
  EXPECT_EQ(count_records(read_text(events_file(tmp.path()))), 7);
  sinks.truncate(0);
  EXPECT_EQ(read_text(tmp / "metrics.csv"), "step,loss\n");
  EXPECT_EQ(read_text(tmp / "metrics.jsonl"), "");
}

TEST(MetricSinks, TornLastRowsAreMendedOnReopening) {
  const TempFolder tmp;
  {
    MetricSinks sinks(tmp.path());
    sinks.row(1, {{"loss", 1}});
    sinks.row(2, {{"loss", 2}});
  }
  const fs::path events = events_file(tmp.path());
  for (const fs::path& path : {tmp / "metrics.jsonl", tmp / "metrics.csv", events}) {
    const std::string bytes = read_text(path);
    write_text(path, bytes.substr(0, bytes.size() - 2));
  }
  MetricSinks sinks(tmp.path());
  sinks.row(2, {{"loss", 3}});
  EXPECT_EQ(read_text(tmp / "metrics.jsonl"),
            "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":3.0}\n");
  EXPECT_EQ(read_text(tmp / "metrics.csv"), "step,loss\n1,1\n2,3\n");
  EXPECT_EQ(count_records(read_text(events)), 3);
}

TEST(MetricSinks, KilledWriterLeavesWholeRows) {
  const TempFolder tmp;
  EXPECT_EQ(in_child([&] {
              MetricSinks sinks(tmp.path());
              for (int step = 0; step < 100; ++step) sinks.row(step, {{"loss", step}});
              ::raise(SIGKILL);
              return 0;
            }),
            1000 + SIGKILL);
  EXPECT_NE(read_text(tmp / "metrics.jsonl").find("{\"step\":99,\"loss\":99.0}\n"),
            std::string::npos);
  EXPECT_TRUE(read_text(tmp / "metrics.csv").ends_with("\n99,99\n"));
  EXPECT_EQ(count_records(read_text(events_file(tmp.path()))), 101);
}

// Also the writer for tests/parity/tensorboard_parity.py, which reads the folder named by the
// variable back through TensorBoard's own loader.
TEST(MetricSinks, ParityFolder) {
  const TempFolder tmp;
  const char* asked = std::getenv("ESPALIER_PARITY_OUT");
  const fs::path dir = asked != nullptr ? fs::path(asked) : tmp.path();
  {
    MetricSinks sinks(dir);
    for (int step = 0; step < 40; ++step) sinks.row(step, {{"train/loss", 4.0 / (1 + step)}});
  }
  MetricSinks sinks(dir);
  sinks.truncate(30);
  for (int step = 30; step < 300; ++step) {
    sinks.row(step, {{"train/loss", 4.0 / (1 + step)},
                     {"eval/perplexity π", 50.0 + step},
                     {"lr", 1e-5 * step}});
  }
  EXPECT_EQ(count_records(read_text(events_file(dir))), 301);
}

TEST(TensorBoardEvents, Crc32cKnownAnswers) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TensorBoardEvents, HandMadeBytes) {
  // Event{wall_time: 1.0, step: 300, summary{value{tag: "a", simple_value: 1.0}}}
  const std::string event = {0x09,
                             0,
                             0,
                             0,
                             0,
                             0,
                             0,
                             static_cast<char>(0xf0),
                             0x3f,
                             0x10,
                             static_cast<char>(0xac),
                             0x02,
                             0x2a,
                             0x0a,
                             0x0a,
                             0x08,
                             0x0a,
                             0x01,
                             'a',
                             0x15,
                             0,
                             0,
                             static_cast<char>(0x80),
                             0x3f};
  EXPECT_EQ(scalar_event(1.0, 300, {{"a", 1.0}}), tf_record(event));
  EXPECT_EQ(event_step(event), 300);
  EXPECT_EQ(event_step(event.substr(0, event.size() - 1)), std::nullopt);
  EXPECT_EQ(event_step("\xff"), std::nullopt);
  const std::string record = tf_record(event);
  EXPECT_EQ(record.size(), event.size() + 16);
  EXPECT_EQ(record.substr(0, 8), std::string("\x18\0\0\0\0\0\0\0", 8));
}

TEST(TensorBoardEvents, DamagedOrHostileRecordsEndTheFile) {
  const std::string header = event_header(1.0), first = scalar_event(1, 1, {{"a", 1}});
  std::string second = scalar_event(1, 2, {{"a", 2}});
  const std::string whole = header + first + second;
  EXPECT_EQ(keep_events_before(whole, 100), whole);
  EXPECT_EQ(keep_events_before(whole, 2), header + first);
  EXPECT_EQ(keep_events_before(whole, 0), header);
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    const std::string kept = keep_events_before(std::string_view(whole).substr(0, cut), 100);
    EXPECT_TRUE(kept.empty() || kept == header || kept == header + first) << cut;
  }
  second[14] = static_cast<char>(second[14] ^ 1);
  EXPECT_EQ(keep_events_before(header + first + second, 100), header + first);
  std::string huge(16, '\xff');
  EXPECT_EQ(keep_events_before(header + huge, 100), header);
}

}  // namespace
}  // namespace espalier::run_internal
