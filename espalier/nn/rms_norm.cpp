// See rms_norm.h.
#include "espalier/nn/rms_norm.h"

#include "espalier/kernels/rms_norm/rms_norm.h"

namespace espalier {

at::Tensor RmsNorm::operator()(const at::Tensor& x) const { return rms_norm(x, weight, eps); }

}  // namespace espalier
