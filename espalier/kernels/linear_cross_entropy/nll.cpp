// linear_nll: the head in tiles of rows and vocabulary that stay in the cache while their softmax
// is folded.
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/kernels/linear_cross_entropy/rows_internal.h"
#include "espalier/kernels/matmul/matmul.h"

namespace espalier {
namespace {

// 512 (kChunkRows) x 4096 float32 logits are 8 MB: half of a core complex's L3. Columns are cut at
// multiples of a constant, never by the number of rows, or a row's rounding would depend on its
// company.
constexpr std::int64_t kColumns = 4096;

}  // namespace

at::Tensor linear_nll(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                      const std::optional<at::Tensor>& bias, double softcap, at::Tensor* best) {
  ESPALIER_ASSERT(hidden.dim() == 2 && weight.dim() == 2 && targets.dim() == 1 &&
                  targets.scalar_type() == at::kLong);
  ESPALIER_ASSERT(hidden.size(0) == targets.size(0) && hidden.size(1) == weight.size(1));
  c10::NoGradGuard no_grad;
  const std::int64_t vocab = weight.size(0);
  const at::Tensor rows = unmasked_rows(targets, vocab);
  const at::Tensor out = at::zeros({targets.size(0)}, hidden.options().dtype(at::kFloat));
  const at::Tensor h = hidden.index_select(0, rows.to(hidden.device())),
                   t = targets.index_select(0, rows).to(hidden.device());
  const at::Tensor nll = at::empty({rows.size(0)}, out.options()),
                   is_best = at::empty({rows.size(0)}, out.options().dtype(at::kBool));
  std::int64_t count = 0;
  for (std::int64_t first = 0; first < rows.size(0); first += count) {
    count = chunk_rows(rows.size(0) - first);
    const at::Tensor part = h.narrow(0, first, count);
    RowSoftmax softmax(t.narrow(0, first, count), hidden.device());
    for (std::int64_t column = 0; column < vocab; column += kColumns) {
      const std::int64_t columns = std::min(kColumns, vocab - column);
      const auto part_bias =
          bias ? std::optional<at::Tensor>(bias->narrow(0, column, columns)) : std::nullopt;
      const at::Tensor logits = matmul_nt(part, weight.narrow(0, column, columns), part_bias);
      softmax.add(softcap > 0 ? capped(logits, softcap) : logits, column);
    }
    nll.narrow(0, first, count).copy_(softmax.nll());
    is_best.narrow(0, first, count).copy_(softmax.target_is_best());
  }
  const at::Tensor places = rows.to(out.device());
  if (best != nullptr)
    *best = at::zeros_like(out, is_best.options()).index_copy_(0, places, is_best);
  return out.index_copy(0, places, nll);
}

}  // namespace espalier
