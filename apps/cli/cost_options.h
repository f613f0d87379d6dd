// --dry-run of every costly verb, and the one form in which a prediction is printed.
#pragma once

#include <string>

#include "espalier/base/units.h"
#include "espalier/options/options.h"

#include "apps/cli/command.h"

namespace espalier::cli {

struct CostOptions {
  bool dry_run = false;

  template <class V>
  void visit(V&& option) {
    option.group("Cost");
    option("dry_run", dry_run,
           "check the inputs, print predicted peak memory, disk use and time, and stop");
  }
};

/// What a run is expected to cost; fields that do not apply stay 0 and are not shown.
struct CostEstimate {
  Bytes peak_memory;         // resident memory of this process at its highest
  Bytes peak_device_memory;  // on the accelerator
  Bytes disk;                // bytes the run will write
  double seconds = 0;        // wall time on this machine with these threads
  std::string note;          // one line: what would be done ("remove layers 12-18 of 30")
};

/// Prints the prediction as the verb's result: a text table, or with --json
/// {"schema": "espalier.<verb>/1", "dry_run": true, "predicted_peak_bytes",
/// "predicted_device_bytes", "predicted_disk_bytes", "predicted_seconds", "plan"}. Warns when
/// memory or disk of `out`'s file system is too small.
void print_cost(Context& context, const std::string& verb, const CostEstimate& estimate,
                const std::string& out);

}  // namespace espalier::cli
