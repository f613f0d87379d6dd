// Computations whose shapes repeat: run plainly the first time, recorded as a CUDA graph the
// second, replayed from then on. One recording per set of shapes; where graphs do not exist or a
// recording fails, everything runs plainly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/train/captured_step.h"

namespace espalier {

class RecordedSteps {
 public:
  /// `wanted` false, or a device without graphs: nothing is recorded. `reporter` must outlive this
  /// object; a recording that fails is one warning.
  RecordedSteps(at::Device device, bool wanted, std::size_t max_graphs, Reporter& reporter);

  /// `inputs` (any device; undefined ones allowed) are brought to the device; results as of `body`
  /// (see CapturedStep::Body), valid until the next call. Equal shapes of the inputs mean that an
  /// earlier body's recording may be replayed in place of this one, so the body must be the same
  /// computation. A body must not change host state that the next run depends on: replays skip it.
  std::vector<at::Tensor> run(const CapturedStep::Body& body, std::vector<at::Tensor> inputs);

  bool records() const { return pool_ != nullptr; }

 private:
  /// Sizes of all inputs, -1 between them.
  using Key = std::vector<std::int64_t>;
  struct Recording {
    std::int64_t runs = 0;
    std::unique_ptr<CapturedStep> step;
  };

  at::Device device_;
  std::size_t max_graphs_;
  Reporter& reporter_;
  std::unique_ptr<CapturePool> pool_;  // null: nothing is recorded
  std::map<Key, Recording> recordings_;
};

}  // namespace espalier
