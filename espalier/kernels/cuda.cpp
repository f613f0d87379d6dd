// See cuda_internal.h.
#include "espalier/base/error.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/rms_norm/kernels_internal.h"

#ifdef ESPALIER_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace espalier {

#ifdef ESPALIER_CUDA
bool cuda_kernels_built() { return true; }

void run_on_current_stream(c10::Device device, const std::function<void(void* stream)>& launch) {
  const c10::cuda::CUDAGuard guard(device);
  launch(c10::cuda::getCurrentCUDAStream(device.index()).stream());
}
#else
bool cuda_kernels_built() { return false; }

void run_on_current_stream(c10::Device, const std::function<void(void* stream)>&) {
  ESPALIER_ASSERT(cuda_kernels_built());
}

// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_rms_norm(const RmsNormParams&, void*) { ESPALIER_ASSERT(cuda_kernels_built()); }
void launch_rms_norm_backward(const RmsNormBackwardParams&, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
void launch_rms_norm_weight_gradient(const RmsNormBackwardParams&, float*, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
#endif

}  // namespace espalier
