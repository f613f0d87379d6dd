// The text that layers are scored on, for the verbs that score: --calibration, --samples,
// --seq-len.
#pragma once

#include <cstdint>
#include <string>

#include "espalier/options/options.h"

namespace espalier::cli {

struct CalibrationOptions {
  std::string calibration;
  std::int64_t samples = 10, seq_len = 128;
  bool special_in_text = true;

  template <class V>
  void visit(V&& option) {
    option.group("Calibration");
    option("calibration", calibration,
           "text that layers are scored on, read as it stands and encoded once",
           placeholder("FILE"));
    option("samples", samples, "how many segments of it; the first ones are taken", at_least(1));
    option("seq_len", seq_len, "tokens per segment", at_least(2));
    option("special_in_text", special_in_text,
           "special tokens written in the text become their ids, as in transformers; off takes "
           "them as letters");
  }
};

}  // namespace espalier::cli
