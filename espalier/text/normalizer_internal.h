// Normalizers of tokenizer.json: a list of steps from text to text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/json_internal.h"

namespace espalier::text {

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  /// Valid UTF-8 in, valid UTF-8 out. Output is bounded by a constant factor of the input (see
  /// max_text_bytes).
  virtual std::string apply(std::string_view text) const = 0;
};

class Normalizer {
 public:
  Normalizer() = default;
  /// From the "normalizer" value of tokenizer.json (null gives identity). Throws
  /// Error(kUnsupported) naming the type that we do not have, Error(kInput) on a malformed one.
  explicit Normalizer(const Json& description);

  bool is_identity() const { return steps_.empty(); }
  std::string apply(std::string_view text) const;

 private:
  void add(const Json& description, int depth);
  std::vector<std::shared_ptr<const NormalizerStep>> steps_;
};

}  // namespace espalier::text
