// The manifest's text: fixed key order, honest gaps, damaged predecessors.
#include <gtest/gtest.h>

#include "espalier/base/json_internal.h"
#include "espalier/run/manifest_internal.h"
#include "espalier/run/test_support_internal.h"

namespace espalier::run_internal {
namespace {

using run_test::TempFolder;
using run_test::write_text;

TEST(Manifest, KeyOrderIsFixed) {
  Manifest manifest;
  manifest.extra = {{"zeta", "1"}, {"alpha", "[2]"}};
  const Json json = parse_json(manifest_text(manifest), "manifest");
  std::string keys;
  for (const auto& item : json.items()) keys += item.key() + " ";
  EXPECT_EQ(keys,
            "schema tool version commit compiler libtorch verb command seed device threads host "
            "state exit started "
            "finished sessions wall_seconds peak_rss_bytes inputs outputs facts recipe ");
  EXPECT_EQ(json["facts"].begin().key(), "zeta")
      << "facts keep the order in which they were learnt";
  EXPECT_TRUE(json["exit"].is_null()) << "a run that was killed has no exit code";
  EXPECT_TRUE(json["finished"].is_null());
}

TEST(Manifest, HostileTextStaysJson) {
  Manifest manifest;
  manifest.facts.command_line = "espalier prune \"a\\b\"\n\x01\xff";
  const Json json = parse_json(manifest_text(manifest), "manifest");
  EXPECT_EQ(json["command"], "espalier prune \"a\\b\"\n\x01\xef\xbf\xbd");
}

TEST(Manifest, UtcText) {
  EXPECT_EQ(utc_text(std::chrono::system_clock::from_time_t(0)), "1970-01-01T00:00:00Z");
  EXPECT_EQ(utc_text(std::chrono::system_clock::from_time_t(1709210096)), "2024-02-29T12:34:56Z");
}

TEST(Manifest, ContinuesAnEarlierSession) {
  const TempFolder tmp;
  write_text(tmp / "m.json",
             R"({"started": "2024-01-01T00:00:00Z", "wall_seconds": 12.5, "sessions": 3})");
  Manifest manifest;
  continue_manifest(manifest, tmp / "m.json");
  EXPECT_EQ(manifest.started, "2024-01-01T00:00:00Z");
  EXPECT_EQ(manifest.wall_seconds, 12.5);
  EXPECT_EQ(manifest.sessions, 4);
}

TEST(Manifest, DamagedPredecessorsAreIgnored) {
  const TempFolder tmp;
  for (const char* text :
       {"", "{", "[]", "null", R"({"started": 5})", R"({"started":"x","wall_seconds":-1})",
        R"({"started":"x","sessions":9223372036854775807})"}) {
    write_text(tmp / "m.json", text);
    Manifest manifest;
    manifest.started = "now";
    continue_manifest(manifest, tmp / "m.json");
    EXPECT_EQ(manifest.started, "now") << text;
    EXPECT_EQ(manifest.sessions, 1) << text;
  }
}

}  // namespace
}  // namespace espalier::run_internal
