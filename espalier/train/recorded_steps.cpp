// See recorded_steps.h.
#include "espalier/train/recorded_steps.h"

#include <exception>
#include <string>

#include <ATen/ATen.h>

#include "espalier/base/format.h"

namespace espalier {

RecordedSteps::RecordedSteps(at::Device device, bool wanted, std::size_t max_graphs,
                             Reporter& reporter)
    : device_(device), max_graphs_(max_graphs), reporter_(reporter) {
  if (wanted && can_capture(device)) pool_ = std::make_unique<CapturePool>();
}

std::vector<at::Tensor> RecordedSteps::run(const CapturedStep::Body& body,
                                           std::vector<at::Tensor> inputs) {
  const auto plain = [&] {
    for (at::Tensor& t : inputs)
      if (t.defined()) t = t.to(device_);
    return body(inputs);
  };
  if (!pool_) return plain();
  Key key;
  for (const at::Tensor& t : inputs) {
    if (t.defined()) key.insert(key.end(), t.sizes().begin(), t.sizes().end());
    key.push_back(t.defined() ? -1 : -2);
  }
  Recording& recording = recordings_[key];
  ++recording.runs;
  // The first run of a shape loads kernels, sizes workspaces and lets cuDNN choose, which a
  // recording cannot.
  if (!recording.step && recording.runs > 1 && recordings_.size() <= max_graphs_) {
    try {
      recording.step = std::make_unique<CapturedStep>(body, inputs, device_, *pool_);
    } catch (const std::exception& e) {
      recordings_.clear();
      pool_.reset();
      reporter_.warn(format("the step cannot be captured as a CUDA graph and runs without: {}",
                            std::string(e.what()).substr(0, 200)));
      return plain();
    }
  }
  return recording.step ? recording.step->replay(inputs) : plain();
}

}  // namespace espalier
