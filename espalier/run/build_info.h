// Which build this is: the facts that a manifest, `--version` and `doctor` print.
#pragma once

#include <string>

namespace espalier {

struct BuildInfo {
  std::string version;           // of espalier, "0.1.0"
  std::string commit;            // of the source tree, "-dirty" when it had changes; "" outside git
  std::string libtorch_version;  // whose headers were compiled against; "" when unknown
  std::string compiler;          // "GCC 12.2.0"
};

const BuildInfo& build_info();

}  // namespace espalier
