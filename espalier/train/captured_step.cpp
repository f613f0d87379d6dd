// See captured_step.h.
#include "espalier/train/captured_step.h"

#include <ATen/ATen.h>

#include "espalier/base/error.h"

#ifdef ESPALIER_CUDA
#include <mutex>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace espalier {

#ifdef ESPALIER_CUDA

namespace {

/// One recording at a time: the allocator's cache cannot be emptied while another one goes on.
std::mutex& recording_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

bool can_capture(at::Device device) { return device.is_cuda(); }

struct CapturePool::State {
  decltype(at::cuda::graph_pool_handle()) id = at::cuda::graph_pool_handle();
};

struct CapturedStep::State {
  at::cuda::CUDAGraph graph;
  std::vector<at::Tensor> inputs, results;
  std::shared_ptr<CapturePool::State> pool;
};

CapturePool::CapturePool() : state_(std::make_shared<State>()) {}

CapturedStep::CapturedStep(const Body& body, const std::vector<at::Tensor>& inputs,
                           at::Device device, const CapturePool& pool)
    : state_(std::make_unique<State>()) {
  state_->pool = pool.state_;
  for (const at::Tensor& input : inputs)
    state_->inputs.push_back(input.defined() ? input.to(device, /*non_blocking=*/false,
                                                        /*copy=*/true)
                                             : at::Tensor());
  const c10::cuda::CUDAGuard guard(device);
  const std::lock_guard lock(recording_mutex());
  c10::cuda::device_synchronize();
  // What the eager runs before this left in the allocator's cache would otherwise stay beside the
  // graph's own memory.
  c10::cuda::CUDACachingAllocator::emptyCache();
  const c10::cuda::CUDAStreamGuard stream(
      c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index()));
  // Other threads may train on streams of their own meanwhile: what they allocate and wait for must
  // not void this recording, as it would in the global mode.
  state_->graph.capture_begin(pool.state_->id, cudaStreamCaptureModeThreadLocal);
  try {
    state_->results = body(state_->inputs);
  } catch (...) {
    try {
      state_->graph.capture_end();
    } catch (...) {  // the capture is void already; what matters is the first exception
    }
    throw;
  }
  state_->graph.capture_end();
}

const std::vector<at::Tensor>& CapturedStep::replay(const std::vector<at::Tensor>& inputs) {
  ESPALIER_ASSERT(inputs.size() == state_->inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (state_->inputs[i].defined()) state_->inputs[i].copy_(inputs[i], /*non_blocking=*/true);
  }
  state_->graph.replay();
  return state_->results;
}

#else

bool can_capture(at::Device) { return false; }

struct CapturePool::State {};
struct CapturedStep::State {};

CapturePool::CapturePool() : state_(std::make_shared<State>()) {}

CapturedStep::CapturedStep(const Body&, const std::vector<at::Tensor>&, at::Device,
                           const CapturePool&) {
  throw Error(ErrorKind::kEnvironment, "CUDA graph", "this build has no CUDA").hint("make CUDA=1");
}

const std::vector<at::Tensor>& CapturedStep::replay(const std::vector<at::Tensor>&) {
  throw Error(ErrorKind::kEnvironment, "CUDA graph", "this build has no CUDA");
}

#endif

CapturePool::~CapturePool() = default;
CapturePool::CapturePool(CapturePool&&) noexcept = default;
CapturePool& CapturePool::operator=(CapturePool&&) noexcept = default;
CapturedStep::~CapturedStep() = default;
CapturedStep::CapturedStep(CapturedStep&&) noexcept = default;
CapturedStep& CapturedStep::operator=(CapturedStep&&) noexcept = default;

}  // namespace espalier
