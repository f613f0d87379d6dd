// Options are booleans, integers, numbers, strings or lists of strings; a float has no parser, so
// it has no flag.
//
// expect: parse_value
#include "espalier/options/options.h"

struct Sample {
#ifdef MISTAKE
  float ratio = 0.25f;
#else
  double ratio = 0.25;
#endif
  template <class V>
  void visit(V&& option) {
    option("ratio", ratio, "share of layers to remove", espalier::in_range(0, 1));
  }
};

espalier::OptionList list(Sample& sample) { return espalier::describe(sample); }
