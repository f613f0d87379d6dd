// The MODEL argument and the numeric type it runs in; shared by every verb that opens a decoder.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "espalier/io/hf_folder.h"
#include "espalier/options/options.h"
#include "espalier/tensor/tensor_view.h"

#include "apps/cli/command.h"

namespace espalier::cli {

/// The positional MODEL alone, for verbs that never compute (inspect, verify, convert).
struct ModelArgument {
  std::string model;

  template <class V>
  void visit(V&& option) {
    option.group("Model");
    option("model", model,
           "a model folder, a .gguf file, or org/name in the local Hugging Face cache",
           positional("MODEL") | required());
  }

  /// Where it leads. Throws Error(kInput) that says which places were looked at.
  ModelLocation locate() const { return locate_model(model); }
};

/// MODEL and --dtype; the device is the common option --device.
struct ModelOptions {
  std::string model;
  std::string dtype = "float32";

  template <class V>
  void visit(V&& option) {
    option.group("Model");
    option("model", model,
           "a model folder, a .gguf file, or org/name in the local Hugging Face cache",
           positional("MODEL") | required());
    option("dtype", dtype, "type of the computation, whatever type the file has",
           one_of({"float32", "bfloat16"}));
  }

  ModelLocation locate() const { return locate_model(model); }
  at::ScalarType scalar_type() const { return dtype == "bfloat16" ? at::kBFloat16 : at::kFloat; }
  /// The device of --device. Throws Error(kEnvironment) when it is absent.
  static at::Device device(const Context& context) { return parse_device(context.common.device); }
};

}  // namespace espalier::cli
