// Reads /proc, /sys/fs/cgroup and the affinity mask; whatever cannot be read counts as unknown,
// never as an error.
#include "apps/cli/machine.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

#include <sys/statvfs.h>
#include <unistd.h>

#include <sched.h>

namespace espalier::cli {

namespace {

std::optional<std::string> first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> number_in(const std::filesystem::path& path) {
  const std::optional<std::string> line = first_line(path);
  return line ? number(*line) : std::nullopt;
}

// The cgroup v2 folders of this process, innermost first; limits may sit at any level.
std::vector<std::filesystem::path> cgroup_folders() {
  const std::filesystem::path root = "/sys/fs/cgroup";
  std::vector<std::filesystem::path> folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::/")) continue;
    for (std::filesystem::path part = line.substr(4); !part.empty(); part = part.parent_path())
      folders.push_back(root / part);
  }
  folders.push_back(root);
  return folders;
}

// Cores of a quota, rounded up: 150 ms per 100 ms are 2.
std::optional<std::int64_t> quota_cores(std::int64_t quota, std::int64_t period) {
  if (quota <= 0 || period <= 0) return std::nullopt;
  return std::max<std::int64_t>(1, (quota + period - 1) / period);
}

std::optional<std::int64_t> cgroup_cores() {
  std::optional<std::int64_t> least;
  const auto take = [&](std::optional<std::int64_t> cores) {
    if (cores && (!least || *cores < *least)) least = cores;
  };
  for (const std::filesystem::path& folder : cgroup_folders()) {
    const std::optional<std::string> line =
        first_line(folder / "cpu.max");  // "max 100000" or "150000 100000"
    if (!line) continue;
    const std::size_t space = line->find(' ');
    const auto quota = number(*line);
    if (quota && space != std::string::npos)
      take(quota_cores(*quota, number(std::string_view(*line).substr(space + 1)).value_or(0)));
  }
  const auto quota = number_in("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");  // version 1
  if (quota)
    take(quota_cores(*quota, number_in("/sys/fs/cgroup/cpu/cpu.cfs_period_us").value_or(0)));
  return least;
}

std::int64_t meminfo(std::string_view key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ':') continue;
    const std::size_t digit = line.find_first_of("0123456789");
    if (digit != std::string::npos)
      return number(std::string_view(line).substr(digit)).value_or(0) * 1024;
  }
  return 0;
}

}  // namespace

std::int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  const std::optional<std::int64_t> quota = cgroup_cores();
  if (quota) cores = std::min(cores, *quota);
  return std::max<std::int64_t>(1, cores);
}

MemoryFacts memory_facts() {
  MemoryFacts facts{{meminfo("MemTotal")}, {meminfo("MemAvailable")}};
  std::vector<std::pair<std::filesystem::path, std::filesystem::path>> files;  // limit, in use
  for (const std::filesystem::path& folder : cgroup_folders())
    files.emplace_back(folder / "memory.max", folder / "memory.current");
  files.emplace_back("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                     "/sys/fs/cgroup/memory/memory.usage_in_bytes");
  for (const auto& [limit_file, used_file] : files) {
    const auto limit = number_in(limit_file);  // "max" is no number
    if (!limit || *limit <= 0 || *limit >= facts.total.count) continue;
    facts.total.count = *limit;
    const std::int64_t left = std::max<std::int64_t>(0, *limit - number_in(used_file).value_or(0));
    facts.available.count = std::min(facts.available.count, left);
  }
  return facts;
}

Bytes free_disk(const std::filesystem::path& path) {
  std::error_code ignored;
  std::filesystem::path place = std::filesystem::absolute(path, ignored);
  while (!place.empty() && !std::filesystem::exists(place, ignored) && place != place.parent_path())
    place = place.parent_path();
  struct statvfs facts {};
  if (statvfs(place.c_str(), &facts) != 0) return {};
  return {static_cast<std::int64_t>(facts.f_bavail) * static_cast<std::int64_t>(facts.f_frsize)};
}

bool ProcessorFacts::has(const std::string& flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

ProcessorFacts processor_facts() {
  ProcessorFacts facts;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line;
       std::getline(file, line) && (facts.model.empty() || facts.flags.empty());) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    const std::string value = line.substr(std::min(colon + 2, line.size()));
    if (line.starts_with("model name")) facts.model = value;
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    std::istringstream words(value);
    for (std::string word; words >> word;) facts.flags.push_back(word);
  }
  return facts;
}

std::filesystem::path find_program(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::filesystem::path candidate =
        std::filesystem::path(folder.empty() ? "." : folder) / program;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(candidate, ignored) &&
        access(candidate.c_str(), X_OK) == 0)
      return candidate;
  }
  return {};
}

}  // namespace espalier::cli
