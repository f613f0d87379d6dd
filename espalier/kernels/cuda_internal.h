// How dispatch files reach CUDA without CUDA headers: builds without ESPALIER_CUDA compile the same
// code and never take that path. Internal.
#pragma once

#include <functional>

#include <c10/core/Device.h>

namespace espalier {

/// True in builds with ESPALIER_CUDA.
bool cuda_kernels_built();

/// Makes `device` current and hands its current stream (a cudaStream_t) to `launch`.
/// Error(kInternal) without CUDA.
void run_on_current_stream(c10::Device device, const std::function<void(void* stream)>& launch);

}  // namespace espalier
