// See own_stream.h.
#include "espalier/tensor/own_stream.h"

#include <exception>

#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace espalier {

struct OwnStream::State {
  explicit State(at::Device device)
      : guard(device),
        streams(device.type()),
        own(streams.getStreamFromGlobalPool(guard.current_device(), /*isHighPriority=*/true)),
        before(streams.exchangeStream(own)) {}

  c10::DeviceGuard guard;
  c10::impl::VirtualGuardImpl streams;
  c10::Stream own, before;
};

OwnStream::OwnStream(at::Device device) {
  if (!device.is_cuda()) return;
  state_ = std::make_unique<State>(device);
  // What another stream was given for this thread's use may still be on its way.
  state_->streams.synchronizeStream(state_->before);
}

OwnStream::~OwnStream() {
  if (!state_) return;
  try {
    state_->streams.synchronizeStream(state_->own);
  } catch (const std::exception&) {
    // A failed kernel was or will be reported by whoever reads its result.
  }
  state_->streams.exchangeStream(state_->before);
}

}  // namespace espalier
