// See residency.h.
#include "apps/cli/residency.h"

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/eval/forward_cost.h"

#include "apps/cli/machine.h"

namespace espalier::cli {

Residency choose_residency(const DecoderConfig& config, at::ScalarType type, at::Device device,
                           Reporter& reporter) {
  const Bytes needed{weight_bytes(config, type)}, available = memory_facts().available;
  if (!device.is_cpu() || available.count == 0 || needed.count < available.count / 10 * 9)
    return Residency::kResident;
  reporter.info(
      format("the weights take {} and {} are available: layers are read from the file as they are "
             "needed; larger batches read them less often",
             to_string(needed), to_string(available)));
  return Residency::kStreamed;
}

}  // namespace espalier::cli
