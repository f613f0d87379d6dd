// Facts about this machine that the program needs: how many cores it may use, memory, disk,
// processor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/base/units.h"

namespace espalier::cli {

/// Cores this process may run on: the affinity mask, cut by a cgroup's CPU quota (rounded up). At
/// least 1.
std::int64_t usable_cores();

struct MemoryFacts {
  Bytes total;      // of the machine, or the cgroup's limit when that is lower
  Bytes available;  // without swapping, and within the cgroup's limit
};
MemoryFacts memory_facts();

/// Free bytes for this user on the file system of `path` or of its nearest existing parent; 0 when
/// unknown.
Bytes free_disk(const std::filesystem::path& path);

struct ProcessorFacts {
  std::string model;               // "Intel(R) Xeon(R) ..."; "" when unknown
  std::vector<std::string> flags;  // as in /proc/cpuinfo
  bool has(const std::string& flag) const;
};
ProcessorFacts processor_facts();

/// The path of `program` found along $PATH; empty when it is not there.
std::filesystem::path find_program(const std::string& program);

}  // namespace espalier::cli
