// A computation of fixed shapes recorded once as a CUDA graph and replayed: small models otherwise
// spend their time launching kernels. Needs CUDA; elsewhere `can_capture` says no.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Whether computations on this device can be captured by this build.
bool can_capture(at::Device device);

/// Graphs that share their memory: between two replays nothing of another graph's results survives.
class CapturePool {
 public:
  CapturePool();
  ~CapturePool();
  CapturePool(CapturePool&&) noexcept;
  CapturePool& operator=(CapturePool&&) noexcept;

 private:
  friend class CapturedStep;
  struct State;
  std::shared_ptr<State> state_;
};

class CapturedStep {
 public:
  /// Inputs on the device -> results on the device. Must ask the host for nothing (no .item(), no
  /// copies from pageable memory, no shapes that depend on values), read nothing that moves, and
  /// have run once before on these shapes. May call torch::autograd::grad.
  using Body = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

  /// Records `body` on tensors like `inputs` (any device; shape and dtype count). Several threads
  /// may record and replay, each with its own pool, steps and current stream (tensor/own_stream.h);
  /// recordings wait for each other. Throws what
  /// libtorch throws when the body cannot be captured; the device is usable afterwards.
  CapturedStep(const Body& body, const std::vector<at::Tensor>& inputs, at::Device device,
               const CapturePool& pool);
  ~CapturedStep();
  CapturedStep(CapturedStep&&) noexcept;
  CapturedStep& operator=(CapturedStep&&) noexcept;

  /// Copies `inputs` in and replays on the current stream. The results are the same tensors at
  /// every call, valid until the next replay of any graph of the pool.
  const std::vector<at::Tensor>& replay(const std::vector<at::Tensor>& inputs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
