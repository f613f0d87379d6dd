// The one translation unit that compiles fmt.
#define FMT_HEADER_ONLY
#include "espalier/base/format.h"

#include <fmt/format.h>

namespace espalier {

std::string vformat(fmt::string_view pattern, fmt::format_args args) {
  return fmt::vformat(pattern, args);
}

}  // namespace espalier
