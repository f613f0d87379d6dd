// The printed form of a prediction; see cost_options.h.
#include "apps/cli/cost_options.h"

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

#include "apps/cli/machine.h"

namespace espalier::cli {

namespace {

void warn_when_too_small(Context& context, const CostEstimate& estimate, const std::string& out) {
  const Bytes memory = memory_facts().available;
  if (memory.count > 0 && estimate.peak_memory.count > memory.count) {
    context.reporter.warn(format("predicted peak memory is {}, but only {} are available",
                                 to_string(estimate.peak_memory), to_string(memory)));
  }
  const Bytes disk = free_disk(out.empty() ? "." : out);
  if (disk.count > 0 && estimate.disk.count > disk.count) {
    context.reporter.warn(format("the result needs {} of disk, but {} has only {} free",
                                 to_string(estimate.disk), out.empty() ? "." : out,
                                 to_string(disk)));
  }
}

}  // namespace

void print_cost(Context& context, const std::string& verb, const CostEstimate& estimate,
                const std::string& out) {
  warn_when_too_small(context, estimate, out);
  std::string text = "dry run: nothing was written\n";
  if (!estimate.note.empty()) text += format("  plan              {}\n", estimate.note);
  if (estimate.peak_memory.count > 0)
    text += format("  peak memory       {}\n", to_string(estimate.peak_memory));
  if (estimate.peak_device_memory.count > 0)
    text += format("  peak on device    {}\n", to_string(estimate.peak_device_memory));
  if (estimate.disk.count > 0) text += format("  disk              {}\n", to_string(estimate.disk));
  if (estimate.seconds > 0)
    text += format("  time              about {}\n", format_seconds(estimate.seconds));
  std::string name = verb;
  for (char& c : name)
    if (c == ' ') c = '_';
  const Json json = {{"schema", "espalier." + name + "/1"},
                     {"dry_run", true},
                     {"plan", estimate.note},
                     {"predicted_peak_bytes", estimate.peak_memory.count},
                     {"predicted_device_bytes", estimate.peak_device_memory.count},
                     {"predicted_disk_bytes", estimate.disk.count},
                     {"predicted_seconds", estimate.seconds},
                     {"out", out}};
  context.print_result(text, dump_json(json));
}

}  // namespace espalier::cli
