// Weights that the bitsandbytes package stored as NF4 in a Hugging Face folder: one tensor of
// nibbles and its companions become one Nf4Weight.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/io/hf_folder.h"
#include "espalier/kernels/nf4/nf4.h"

namespace espalier {

/// Checks `quantization_config` of a config.json (as text of that object): nothing to do for
/// bitsandbytes 4-bit NF4; Error(kUnsupported) naming the method (fp4, int8, gptq, awq, ...)
/// otherwise. `source` is the subject of the error.
void check_bnb_config(std::string_view quantization_config, std::string_view source);

class BnbWeights {
 public:
  /// Finds the quantised weights among `tensors` (by their quant_state) and checks them: state
  /// readable, kind nf4, companions there with the sizes the state implies. Problems are appended,
  /// with the tensor's name; such weights are left out.
  static BnbWeights collect(const std::vector<StoredTensor>& tensors,
                            std::vector<std::string>& problems);

  bool empty() const { return weights_.empty(); }
  /// Whether a tensor of the file is the nibbles or a companion of a quantised weight.
  bool owns(std::string_view tensor_name) const;
  bool has(std::string_view weight_name) const { return weights_.contains(weight_name); }
  /// [out, in] of a weight that `has` knows.
  const std::vector<std::int64_t>& shape(std::string_view weight_name) const;
  /// Names of the weights.
  std::vector<std::string> names() const;
  /// The weight on the CPU; nibbles are a view of the mapped file, scales are copied.
  Nf4Weight load(std::string_view weight_name) const;

 private:
  struct Stored {
    Nf4Weight layout;  // shape, block sizes, offset, rounding; no tensors
    const StoredTensor *packed = nullptr, *absmax = nullptr, *nested_absmax = nullptr,
                       *nested_map = nullptr;
  };
  static std::string check(const std::string& name, const StoredTensor& state,
                           const std::map<std::string, const StoredTensor*, std::less<>>& by_name,
                           Stored& out);
  std::map<std::string, Stored, std::less<>> weights_;
};

}  // namespace espalier
