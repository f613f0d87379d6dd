// Collects the facts of the machine and prints the manifest.
#include <algorithm>
#include <fstream>
#include <system_error>
#include <thread>

#include <sys/utsname.h>

#include <time.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/run/build_info.h"
#include "espalier/run/manifest_internal.h"

namespace fs = std::filesystem;

namespace espalier::run_internal {
namespace {

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    return colon == std::string::npos ? std::string() : line.substr(colon + 2);
  }
  return {};
}

Json host_facts() {
  Json host = Json::object();
  host["cpu"] = cpu_model();
  host["logical_cpus"] = std::thread::hardware_concurrency();
  utsname names{};
  const bool known = ::uname(&names) == 0;
  host["system"] =
      known ? format("{} {} {}", names.sysname, names.release, names.machine) : std::string();
  return host;
}

Json file_list(const std::vector<ManifestFile>& files) {
  Json list = Json::array();
  for (const ManifestFile& file : files) {
    Json entry = Json::object();
    entry["path"] = file.path;
    entry["bytes"] = file.bytes;
    entry["digest"] = file.digest.empty() ? Json(nullptr) : Json(file.digest);
    list.push_back(std::move(entry));
  }
  return list;
}

Json exit_code(const std::string& state) {
  if (state == "finished") return 0;
  if (state == "interrupted") return 130;
  return nullptr;
}

}  // namespace

std::string utc_text(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string manifest_text(const Manifest& manifest) {
  const BuildInfo& build = build_info();
  const RunFacts& facts = manifest.facts;
  Json json = Json::object();
  json["schema"] = "espalier.manifest/1";
  json["tool"] = "espalier";
  json["version"] = build.version;
  json["commit"] = build.commit;
  json["compiler"] = build.compiler;
  json["libtorch"] =
      facts.libtorch_version.empty() ? build.libtorch_version : facts.libtorch_version;
  json["verb"] = facts.verb;
  json["command"] = facts.command_line;
  json["seed"] = facts.seed;
  json["device"] = facts.device;
  json["threads"] = facts.threads;
  json["host"] = host_facts();
  json["state"] = manifest.state;
  json["exit"] = exit_code(manifest.state);
  json["started"] = manifest.started;
  json["finished"] = manifest.finished.empty() ? Json(nullptr) : Json(manifest.finished);
  json["sessions"] = manifest.sessions;
  json["wall_seconds"] = manifest.wall_seconds;
  json["peak_rss_bytes"] = peak_rss().count;
  json["inputs"] = file_list(manifest.inputs);
  json["outputs"] = file_list(manifest.outputs);
  Json extra = Json::object();
  for (const auto& [key, text] : manifest.extra) {
    try {
      extra[key] = parse_json(text, key);
    } catch (const Error& error) {
      throw Error(ErrorKind::kInternal, "manifest fact " + key, error.what());
    }
  }
  json["facts"] = std::move(extra);
  json["recipe"] = facts.resolved_recipe;
  return dump_json(json);
}

void continue_manifest(Manifest& manifest, const fs::path& earlier) {
  std::error_code ignored;
  if (!fs::exists(earlier, ignored)) return;
  try {
    const Json json = read_json_file(earlier, 1u << 28);
    if (!json.is_object()) return;
    const std::string started = json.value("started", std::string());
    const double wall_seconds = json.value("wall_seconds", 0.0);
    const std::int64_t sessions = json.value("sessions", std::int64_t{1});
    if (started.empty() || wall_seconds < 0 || sessions < 1 || sessions > 1'000'000) return;
    manifest.started = started;
    manifest.wall_seconds = wall_seconds;
    manifest.sessions = sessions + 1;
  } catch (const std::exception&) {
    // A run killed while it wrote its first manifest: its times are lost, nothing else is.
  }
}

std::vector<ManifestFile> list_outputs(const fs::path& folder,
                                       const std::map<std::string, std::string>& digests) {
  std::vector<ManifestFile> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string path = entry.path().lexically_relative(folder).generic_string();
    // What says how the run went is no output: the log grows, the report may be redrawn.
    static constexpr std::string_view kRecords[] = {"run/lock", "run/manifest.json", "run/log.txt",
                                                    "run/report.html"};
    if (std::find(std::begin(kRecords), std::end(kRecords), path) != std::end(kRecords)) continue;
    const auto digest = digests.find(path);
    files.push_back({path, static_cast<std::int64_t>(entry.file_size()),
                     digest == digests.end() ? std::string() : digest->second});
  }
  std::sort(files.begin(), files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.path < b.path; });
  return files;
}

std::int64_t bytes_of(const fs::path& path) {
  if (!fs::is_directory(path)) return static_cast<std::int64_t>(fs::file_size(path));
  std::int64_t total = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) total += static_cast<std::int64_t>(entry.file_size());
  }
  return total;
}

}  // namespace espalier::run_internal
