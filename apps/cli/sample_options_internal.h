// The options that the tests of this folder parse, with one of each kind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

struct SampleOptions {
  std::string model, out, text, method = "auto";
  std::int64_t count = 7;
  double ratio = 0.25;
  bool force = false, bos = true;
  std::vector<std::string> metrics{"bi"}, stop;
  std::optional<std::int64_t> keep;

  template <class V>
  void visit(V&& option) {
    option.group("Model");
    option("model", model, "a model", positional("MODEL") | required());
    option.group("What");
    option("count", count, "how many layers", in_range(1, 100));
    option("ratio", ratio, "share of layers", in_range(0, 0.95) | alias("rho"));
    option("method", method, "layer score", one_of({"auto", "reverse", "bi"}));
    option("metrics", metrics, "scores", one_of({"bi", "ppl", "angular"}));
    option("stop", stop, "stop strings");
    option("prompt_text", text, "text to go on from", placeholder("TEXT"));
    option("keep_last", keep, "layers to keep", at_least(1));
    option("force", force, "do it all the same");
    option("add_bos", bos, "put BOS in front");
    option.group("Output");
    option("out", out, "where to", placeholder("PATH") | required());
  }
};

/// Options of the sample verb together with the common ones, bound to this object.
struct Sample {
  SampleOptions options;
  CommonOptions common;
  OptionList list;
  Sample() {
    list = describe(options);
    for (Option& option : describe(common)) list.push_back(std::move(option));
  }
  Sample(const Sample&) = delete;
  Sample& operator=(const Sample&) = delete;
};

}  // namespace espalier::cli
