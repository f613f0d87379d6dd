// See split_internal.h. The product is MKL's gemm_bf16bf16f32, which libtorch links and exports.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/matmul/split_internal.h"

// Weak: a libtorch built without MKL does not have it.
extern "C" __attribute__((weak)) void cblas_gemm_bf16bf16f32(int layout, int trans_a, int trans_b,
                                                             int m, int n, int k, float alpha,
                                                             const void* a, int lda, const void* b,
                                                             int ldb, float beta, float* c,
                                                             int ldc);

namespace espalier {
namespace {

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
constexpr std::int64_t kGrainElements = 32768;

constexpr int kLeft = 0, kRight = 1;

/// Room for one factor's parts, kept from call to call: fresh pages for each product would cost as
/// much as the matrix units save. Larger factors get room of their own.
constexpr std::int64_t kKeptElements = 16 << 20;
at::Tensor room(int side, std::int64_t elements) {
  const auto make = [](std::int64_t n) { return at::empty({n}, at::kBFloat16); };
  if (elements > kKeptElements) return make(elements);
  thread_local at::Tensor kept[2];
  at::Tensor& mine = kept[side];
  if (!mine.defined() || mine.numel() < elements) mine = make(elements);
  return mine;
}

/// Three parts of x [rows, columns] side by side [rows, 3 columns] or stacked [3 rows, columns].
enum class Layout : std::uint8_t { kBeside, kStacked };
struct Factor {
  at::Tensor parts;  // at least the elements below
  std::int64_t row = 0;
};
Factor three_parts(const at::Tensor& x, int side, Layout layout) {
  const at::Tensor source = x.contiguous();
  const std::int64_t rows = x.size(0), columns = x.size(1);
  const bool beside = layout == Layout::kBeside;
  const Factor out{room(side, 3 * rows * columns), beside ? 3 * columns : columns};
  const std::int64_t next_part = beside ? columns : rows * columns;
  const auto* from = source.const_data_ptr<float>();
  auto* to = static_cast<std::uint16_t*>(out.parts.mutable_data_ptr());
  // The parts that meet: left high, high, low; right high, low, high.
  const std::int64_t low = side == kLeft ? 2 : 1, copy = 3 - low;
  at::parallel_for(0, rows, std::max<std::int64_t>(1, kGrainElements / columns),
                   [&](std::int64_t first, std::int64_t last) {
                     for (std::int64_t row = first; row < last; ++row) {
                       std::uint16_t* high = to + row * out.row;
                       split_bf16(from + row * columns, columns, high, high + low * next_part);
                       std::copy_n(high, columns, high + copy * next_part);
                     }
                   });
  return out;
}

at::Tensor product(const Factor& a, bool a_transposed, const Factor& b, bool b_transposed,
                   std::int64_t m, std::int64_t n, std::int64_t k) {
  ESPALIER_ASSERT(has_split_products());
  const at::Tensor c = at::empty({m, n}, at::kFloat);
  cblas_gemm_bf16bf16f32(kRowMajor, a_transposed ? kTrans : kNoTrans,
                         b_transposed ? kTrans : kNoTrans, static_cast<int>(m), static_cast<int>(n),
                         static_cast<int>(k), 1, a.parts.const_data_ptr(), static_cast<int>(a.row),
                         b.parts.const_data_ptr(), static_cast<int>(b.row), 0,
                         c.mutable_data_ptr<float>(), static_cast<int>(n));
  return c;
}

}  // namespace

bool has_split_products() {
#if defined(__x86_64__)
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (cblas_gemm_bf16bf16f32 == nullptr || !__builtin_cpu_supports("avx512f")) return false;
    // Leaf 7: AMX-BF16 is bit 22 and AMX-TILE bit 24 of EDX.
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    return (d >> 22 & 1u) != 0 && (d >> 24 & 1u) != 0;
  }();
  return has;
#else
  return false;
#endif
}

at::Tensor split_nt(const at::Tensor& x, const at::Tensor& weight) {
  return product(three_parts(x, kLeft, Layout::kBeside), false,
                 three_parts(weight, kRight, Layout::kBeside), true, x.size(0), weight.size(0),
                 3 * x.size(1));
}

at::Tensor split_nn(const at::Tensor& g, const at::Tensor& weight) {
  return product(three_parts(g, kLeft, Layout::kBeside), false,
                 three_parts(weight, kRight, Layout::kStacked), false, g.size(0), weight.size(1),
                 3 * g.size(1));
}

at::Tensor split_tn(const at::Tensor& g, const at::Tensor& x) {
  return product(three_parts(g, kLeft, Layout::kStacked), true,
                 three_parts(x, kRight, Layout::kStacked), false, g.size(1), x.size(1),
                 3 * g.size(0));
}

}  // namespace espalier
