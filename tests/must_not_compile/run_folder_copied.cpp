// A run folder has one owner: a copy would publish or remove the same folder twice.
//
// expect: (deleted|no matching function)
#include <utility>

#include "espalier/run/run_folder.h"

espalier::RunFolder pass_on(espalier::RunFolder& run) {
#ifdef MISTAKE
  return run;
#else
  return std::move(run);
#endif
}
