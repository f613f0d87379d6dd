// Compile-time facts; the commit comes from a header that run/CMakeLists.txt renews before each
// build.
#include "espalier/run/build_info.h"

#include "espalier_commit.inc"

namespace espalier {

const BuildInfo& build_info() {
#if defined(__clang__)
  static const BuildInfo info{ESPALIER_VERSION, ESPALIER_COMMIT, ESPALIER_LIBTORCH_VERSION,
                              "Clang " __clang_version__};
#else
  static const BuildInfo info{ESPALIER_VERSION, ESPALIER_COMMIT, ESPALIER_LIBTORCH_VERSION,
                              "GCC " __VERSION__};
#endif
  return info;
}

}  // namespace espalier
