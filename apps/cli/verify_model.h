// Proof that a model folder or GGUF file is whole, and who can load it. Opens everything, changes
// nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/io/hf_folder.h"

namespace espalier::cli {

struct VerifyCheck {
  enum class Status : std::uint8_t { kOk, kWarning, kProblem, kSkipped };
  std::string
      name;  // "files", "config", "tensors", "index", "tokenizer", "chat template", "values"
  Status status = Status::kOk;
  std::vector<std::string> details;  // what was found; for kProblem, every problem
};

struct Consumer {
  std::string name;  // "transformers", "llama.cpp", "vLLM", "espalier"
  bool loads = false;
  std::string reason;  // what speaks for it, what stands against it, or what to type first
};

struct Verification {
  std::string path, format, architecture;
  std::vector<VerifyCheck> checks;
  std::vector<Consumer> consumers;
  std::int64_t tensors = 0, scanned_elements = 0;
  bool deep = false;

  /// Details of every check of that status.
  std::vector<std::string> all(VerifyCheck::Status status) const;
  bool whole() const { return all(VerifyCheck::Status::kProblem).empty(); }
};

/// Collects everything that is wrong instead of stopping at the first. `deep` also reads every
/// weight for NaN and Inf (memory-bandwidth bound, resident memory O(1)). Throws only what keeps it
/// from looking at all: Error(kUnsupported) for formats we do not have, Interrupted on a stop
/// request.
Verification verify_model(const ModelLocation& location, bool deep, Reporter& reporter,
                          const StopToken& stop);

}  // namespace espalier::cli
