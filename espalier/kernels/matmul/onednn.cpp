// See onednn_internal.h. The operator is mkldnn::_linear_pointwise, which libtorch registers for
// its compiler: unlike at::mkldnn_linear it takes plain tensors, so nothing is converted to and
// from an opaque layout.
#include <optional>
#include <string_view>

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "espalier/base/error.h"
#include "espalier/kernels/matmul/onednn_internal.h"

namespace espalier {
namespace {

using Scalars = c10::List<std::optional<at::Scalar>>;
using LinearPointwise = at::Tensor(const at::Tensor&, const at::Tensor&,
                                   const std::optional<at::Tensor>&, std::string_view, Scalars,
                                   std::optional<std::string_view>);

const std::optional<c10::TypedOperatorHandle<LinearPointwise>>& operation() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<LinearPointwise>> {
    if (!at::hasMKLDNN()) return std::nullopt;
#if defined(__x86_64__)
    // On AVX2 processors its kernels round a row differently with the number of rows, which
    // matmul_nt promises they do not; MKL is no slower there.
    if (!__builtin_cpu_supports("avx512f")) return std::nullopt;
#endif
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !schema->hasKernelForDispatchKey(c10::DispatchKey::CPU)) return std::nullopt;
    return schema->typed<LinearPointwise>();
  }();
  return handle;
}

at::Tensor dense(const at::Tensor& matrix) {
  return matrix.is_contiguous() || matrix.t().is_contiguous() ? matrix : matrix.contiguous();
}

}  // namespace

bool has_onednn_linear() { return operation().has_value(); }

at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight) {
  ESPALIER_ASSERT(has_onednn_linear());
  c10::impl::ExcludeDispatchKeyGuard no_autograd(c10::autograd_dispatch_keyset);
  return operation()->call(dense(x), dense(weight), std::nullopt, "none", Scalars(), std::nullopt);
}

}  // namespace espalier
