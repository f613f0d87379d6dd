// Which library computes a product, tiles for batch invariance, and the backward.
#include "espalier/kernels/matmul/matmul.h"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/gguf_quants/gguf_dot.h"
#include "espalier/kernels/matmul/onednn_internal.h"

namespace espalier {
namespace {

// oneDNN blocks the inner dimension by the number of rows when there are few of them, which changes
// the rounding; from this many rows on the blocking is one and the same (tested). Fewer rows are
// padded to it.
constexpr std::int64_t kTileRows = 128;
// MKL gives single rows left over by its threads to another kernel; below kTileRows, rows are
// padded to a multiple of this.
constexpr std::int64_t kMklRows = 16;
// Below 8 rows neither library keeps the promise of equal bits, and neither reaches the memory's
// speed (measured on Zen 5: 16 and 19 of 31 GB/s for the head of a 135M model): such products go
// through the kernel that reads weights as they lie in files.
constexpr std::int64_t kFewRows = 8;
// Below this many weights the call overhead of oneDNN (about 20 us) outweighs its kernels.
constexpr std::int64_t kSmallWeight = 64 * 64;

MatmulBackend choose_backend() {
  if (const char* text = std::getenv("ESPALIER_MATMUL"); text != nullptr && *text != '\0') {
    const std::string_view name(text);
    if (name == "aten") return MatmulBackend::kAten;
    if (name == "onednn" && has_onednn_linear()) return MatmulBackend::kOnednn;
    throw Error(name == "onednn" ? ErrorKind::kEnvironment : ErrorKind::kUsage, "ESPALIER_MATMUL",
                name == "onednn" ? std::string("this libtorch has no oneDNN for this processor")
                                 : format("is \"{}\", expected aten or onednn", name));
  }
#if defined(__x86_64__)
  // MKL takes its AVX-512 kernels only on Intel's processors, and there rounds a row of 1536 or
  // more elements differently with the number of rows (seen on Sapphire Rapids), at oneDNN's speed.
  if (__builtin_cpu_supports("avx512f") && has_onednn_linear()) return MatmulBackend::kOnednn;
#endif
  return MatmulBackend::kAten;
}

std::atomic<MatmulBackend>& backend_slot() {
  static std::atomic<MatmulBackend> slot{choose_backend()};
  return slot;
}

bool plain_float(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat && x.device().is_cpu();
}

at::Tensor pad_rows(const at::Tensor& x, std::int64_t rows) {
  at::Tensor padded = at::zeros({rows, x.size(1)}, x.options());
  padded.narrow(0, 0, x.size(0)).copy_(x);
  return padded;
}

/// Gradients through oneDNN: transposed factors make it several times slower than MKL on Intel's
/// processors, and no promise of equal bits hangs on them.
bool onednn_gradients() {
#if defined(__x86_64__)
  static const bool intel = __builtin_cpu_is("intel") != 0;
  return !intel;
#else
  return true;
#endif
}

/// x [rows, in] W^T by oneDNN, the same bits per row for any number of rows.
at::Tensor tiled_onednn(const at::Tensor& x, const at::Tensor& weight) {
  const std::int64_t rows = x.size(0);
  if (rows >= kTileRows) return onednn_linear(x, weight);
  // A copy: a view would keep the padding alive as long as the result.
  return onednn_linear(pad_rows(x, kTileRows), weight).narrow(0, 0, rows).clone();
}

at::Tensor aten_linear(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias) {
  const std::int64_t in = weight.size(1), rows = in == 0 ? 0 : x.numel() / in;
  const bool mkl = plain_float(x) && rows >= kFewRows && rows < kTileRows && rows % kMklRows != 0;
  if (!mkl) return at::linear(x, weight, bias);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const std::int64_t padded_rows = (rows + kMklRows - 1) / kMklRows * kMklRows;
  return at::linear(pad_rows(x.reshape({rows, in}), padded_rows), weight, bias)
      .narrow(0, 0, rows)
      .view(sizes);
}

bool takes_few_rows(const at::Tensor& x, const at::Tensor& weight, std::int64_t rows) {
  const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  return type && rows > 0 && rows < kFewRows && x.scalar_type() == weight.scalar_type() &&
         x.device().is_cpu() && weight.device().is_cpu() && weight.is_contiguous();
}

/// x [rows, in] W^T for a handful of rows, bound by reading W once; bfloat16 is widened in
/// registers.
at::Tensor few_rows_linear(const at::Tensor& x, const at::Tensor& weight) {
  const std::int64_t rows = x.size(0), in = weight.size(1), out = weight.size(0);
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const at::Tensor y = at::empty({rows, out}, wide.options());
  const bool bf16 = weight.scalar_type() == at::kBFloat16;
  quantized_linear(bf16 ? GgufType::kBF16 : GgufType::kF32,
                   {static_cast<const std::byte*>(weight.const_data_ptr()), weight.nbytes()}, out,
                   in, {wide.const_data_ptr<float>(), static_cast<std::size_t>(wide.numel())}, rows,
                   {y.mutable_data_ptr<float>(), static_cast<std::size_t>(y.numel())});
  return y.to(x.scalar_type());
}

at::Tensor forward_product(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias) {
  const std::int64_t in = weight.size(1), out = weight.size(0), rows = in == 0 ? 0 : x.numel() / in;
  const bool few = takes_few_rows(x, weight, rows);
  if (!few && (!plain_float(x) || !plain_float(weight) || !uses_onednn(rows, in, out)))
    return aten_linear(x, weight, bias);
  const at::Tensor flat = x.reshape({rows, in});
  at::Tensor y = few ? few_rows_linear(flat, weight) : tiled_onednn(flat, weight);
  if (bias) y.add_(*bias);
  auto sizes = x.sizes().vec();
  sizes.back() = out;
  return y.view(sizes);
}

class MatmulNt : public torch::autograd::Function<MatmulNt> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    return forward_product(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& weight = saved[1];
    const at::Tensor g = grads[0].reshape({-1, weight.size(0)});
    at::Tensor grad_x, grad_weight, grad_bias;
    if (ctx->needs_input_grad(0)) grad_x = matmul_nn(g, weight).view(x.sizes());
    if (ctx->needs_input_grad(1)) grad_weight = matmul_tn(g, x.reshape({-1, weight.size(1)}));
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) grad_bias = g.sum(0);
    return {grad_x, grad_weight, grad_bias};
  }
};

}  // namespace

MatmulBackend matmul_backend() { return backend_slot().load(); }

std::string_view matmul_backend_name() {
  return matmul_backend() == MatmulBackend::kOnednn ? "onednn" : "aten";
}

void set_matmul_backend(MatmulBackend backend) {
  if (backend == MatmulBackend::kOnednn && !has_onednn_linear()) {
    throw Error(ErrorKind::kEnvironment, "matmul",
                "this libtorch has no oneDNN for this processor");
  }
  backend_slot().store(backend);
}

bool uses_onednn(std::int64_t rows, std::int64_t in, std::int64_t out) {
  return rows >= kFewRows && in * out >= kSmallWeight && matmul_backend() == MatmulBackend::kOnednn;
}

at::Tensor matmul_nn(const at::Tensor& g, const at::Tensor& weight) {
  if (!plain_float(g) || !plain_float(weight) || !onednn_gradients() ||
      !uses_onednn(g.size(0), weight.size(0), weight.size(1)))
    return at::matmul(g, weight);
  return tiled_onednn(g, weight.t());
}

at::Tensor matmul_tn(const at::Tensor& g, const at::Tensor& x) {
  if (!plain_float(g) || !plain_float(x) || !onednn_gradients() ||
      !uses_onednn(g.size(1), g.size(0), x.size(1)))
    return at::matmul(g.t(), x);
  return onednn_linear(g.t(), x.t());
}

at::Tensor matmul_nt(const at::Tensor& x, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias) {
  ESPALIER_ASSERT(weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1));
  const at::Tensor maybe_bias = bias.value_or(at::Tensor());
  if (needs_grad(x, weight, maybe_bias) && plain_float(x)) return MatmulNt::apply(x, weight, bias);
  return forward_product(x, weight, bias);
}

}  // namespace espalier
