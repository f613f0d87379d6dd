// linear_nll: the head in tiles of rows and vocabulary that stay in the cache while their softmax
// is folded; on CUDA whole rows, one product and one kernel a chunk.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/kernels/linear_cross_entropy/loss_params_internal.h"
#include "espalier/kernels/linear_cross_entropy/rows_internal.h"
#include "espalier/kernels/matmul/matmul.h"

namespace espalier {
namespace {

// 512 (kChunkRows) x 4096 float32 logits are 8 MB: half of a core complex's L3. Columns are cut at
// multiples of a constant, never by the number of rows, or a row's rounding would depend on its
// company.
constexpr std::int64_t kColumns = 4096;

struct Head {
  const at::Tensor& weight;  // [vocab, d]
  const std::optional<at::Tensor>& bias;
  double softcap;

  /// Of columns [first, first + count); float32 when they are capped.
  at::Tensor logits(const at::Tensor& rows, std::int64_t first, std::int64_t count) const {
    const auto part_bias =
        bias ? std::optional<at::Tensor>(bias->narrow(0, first, count)) : std::nullopt;
    const at::Tensor out = matmul_nt(rows, weight.narrow(0, first, count), part_bias);
    return softcap > 0 ? capped(out, softcap) : out;
  }
};

void fold_tiles(const Head& head, const at::Tensor& rows, const at::Tensor& targets,
                const at::Tensor& nll, const at::Tensor& is_best) {
  const std::int64_t vocab = head.weight.size(0);
  RowSoftmax softmax(targets, rows.device());
  for (std::int64_t column = 0; column < vocab; column += kColumns)
    softmax.add(head.logits(rows, column, std::min(kColumns, vocab - column)), column);
  nll.copy_(softmax.nll());
  is_best.copy_(softmax.target_is_best());
}

void fold_on_device(const Head& head, const at::Tensor& rows, const at::Tensor& targets,
                    const at::Tensor& nll, const at::Tensor& is_best) {
  const std::int64_t vocab = head.weight.size(0);
  const at::Tensor logits = head.logits(rows, 0, vocab).contiguous();
  NllParams params;
  params.logits = logits.const_data_ptr();
  params.targets = targets.const_data_ptr<std::int64_t>();
  params.nll = nll.mutable_data_ptr<float>();
  params.best = is_best.mutable_data_ptr<bool>();
  params.rows = logits.size(0);
  params.vocab = vocab;
  params.bf16 = logits.scalar_type() == at::kBFloat16;
  run_on_current_stream(logits.device(), [&](void* stream) { launch_nll(params, stream); });
}

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
  const Head head{weight, bias, softcap};
  const auto fold = has_device_loss(hidden) ? fold_on_device : fold_tiles;
  std::int64_t count = 0;
  for (std::int64_t first = 0; first < rows.size(0); first += count) {
    count = chunk_rows(rows.size(0) - first);
    fold(head, h.narrow(0, first, count), t.narrow(0, first, count), nll.narrow(0, first, count),
         is_best.narrow(0, first, count));
  }
  const at::Tensor places = rows.to(out.device());
  if (best != nullptr)
    *best = at::zeros_like(out, is_best.options()).index_copy_(0, places, is_best);
  return out.index_copy(0, places, nll);
}

}  // namespace espalier
