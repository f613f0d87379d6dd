// run/manifest.json: who made this folder, from what, with which command, and how it ended.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "espalier/run/run_folder.h"

namespace espalier::run_internal {

struct ManifestFile {
  std::string path;
  std::int64_t bytes = 0;
  std::string digest;
};

struct Manifest {
  RunFacts facts;
  std::string state = "running";  // running, interrupted, finished
  std::string started, finished;  // UTC, ISO 8601; finished is empty while running
  double wall_seconds = 0;        // over all sessions
  std::int64_t sessions = 1;      // 1 + how often the run was resumed
  std::vector<ManifestFile> inputs, outputs;
  std::vector<std::pair<std::string, std::string>> extra;  // key, JSON text
};

/// "2026-01-31T23:59:59Z".
std::string utc_text(std::chrono::system_clock::time_point time);

/// JSON text with a fixed key order. `extra` values that are not JSON are our bug:
/// Error(kInternal).
std::string manifest_text(const Manifest& manifest);

/// Takes over start time, wall seconds and session count of an interrupted run; a missing or
/// damaged file is ignored.
void continue_manifest(Manifest& manifest, const std::filesystem::path& earlier);

/// All regular files below `folder` but run/lock, run/manifest.json, run/log.txt and
/// run/report.html, sorted by path.
std::vector<ManifestFile> list_outputs(const std::filesystem::path& folder,
                                       const std::map<std::string, std::string>& digests);

/// Bytes of a file, or of all files below a folder.
std::int64_t bytes_of(const std::filesystem::path& path);

}  // namespace espalier::run_internal
