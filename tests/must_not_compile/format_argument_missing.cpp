// A format string with more fields than arguments is caught at compile time, not in an error path
// nobody has run.
//
// expect: (consteval|constant expression|argument not found)
#include "espalier/base/format.h"

std::string text(int done) {
#ifdef MISTAKE
  return espalier::format("{} of {}", done);
#else
  return espalier::format("{} of {}", done, 2);
#endif
}
