// A CUDA stream for one thread, so that what several threads compute on one GPU overlaps.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Makes a stream of the device the current one of this thread until the scope ends, and waits for
/// its work then. Nothing on the CPU. The stream is of high priority: these are taken from a pool
/// of their own (32, in turn), which recordings of CUDA graphs (train/captured_step.h) never take
/// from, so that no thread computes into another one's recording.
class OwnStream {
 public:
  explicit OwnStream(at::Device device);
  ~OwnStream();
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;  // null on the CPU
};

}  // namespace espalier
