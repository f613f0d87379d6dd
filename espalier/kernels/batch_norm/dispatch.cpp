// Checks, autograd and choice of backend for batch_norm_train.
#include <optional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/batch_norm/batch_norm.h"
#include "espalier/kernels/batch_norm/kernels_internal.h"
#include "espalier/kernels/cuda_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 16384;

std::int64_t grain(std::int64_t channels) {
  return std::max<std::int64_t>(1, kGrainElements / channels);
}

/// The kernels walk rows of channels. A tensor that is both (one channel, one pixel) counts.
bool has_kernel(const at::Tensor& x, const BatchNormTensors& norm) {
  const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  const bool device = x.device().is_cpu() || (cuda_kernels_built() && x.device().is_cuda());
  return type && device && norm.weight.scalar_type() == at::kFloat &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor composed(const at::Tensor& x, const BatchNormTensors& norm, const at::Tensor& residual,
                    NormActivation activation) {
  // Counted first: the running statistics below belong to this batch too.
  if (norm.counter.defined()) norm.counter.add_(1);
  at::Tensor y = at::batch_norm(x, norm.weight, norm.bias, norm.running_mean, norm.running_var,
                                /*training=*/true, norm.momentum, norm.eps, /*cudnn_enabled=*/true);
  // In place: the backward of a norm needs its input, not its output.
  if (residual.defined()) y.add_(residual);
  return activation == NormActivation::kRelu ? y.relu_() : y;
}

template <class Params>
void set_rows(Params& p, const at::Tensor& x) {
  p.channels = x.size(1);
  p.rows = x.numel() / p.channels;
  p.chunk_rows =
      x.device().is_cuda() ? batch_norm_cuda_chunk(p.rows, p.channels) : kBatchNormCpuChunk;
  p.bf16 = x.scalar_type() == at::kBFloat16;
}

template <class Params>
at::Tensor make_partial(Params& p, const at::Tensor& x) {
  at::Tensor partial = at::empty({batch_norm_chunks(p.rows, p.chunk_rows), 2, p.channels},
                                 x.options().dtype(at::kFloat).memory_format({}));
  p.partial = partial.mutable_data_ptr<float>();
  return partial;
}

at::Tensor per_channel(const at::Tensor& x) {
  return at::empty({x.size(1)}, at::TensorOptions().dtype(at::kFloat).device(x.device()));
}

struct Normed {
  at::Tensor y, mean, invstd;
};

float* data_or_null(const at::Tensor& t) {
  return t.defined() ? t.mutable_data_ptr<float>() : nullptr;
}

Normed by_kernel(const at::Tensor& x, const BatchNormTensors& norm, const at::Tensor& residual,
                 NormActivation activation) {
  const Normed out{at::empty_like(x), per_channel(x), per_channel(x)};
  const at::Tensor weight = norm.weight.contiguous(), bias = norm.bias.contiguous();
  BatchNormParams p;
  set_rows(p, x);
  p.x = x.const_data_ptr();
  p.residual = residual.defined() ? residual.const_data_ptr() : nullptr;
  p.y = out.y.mutable_data_ptr();
  p.weight = weight.const_data_ptr<float>();
  p.bias = bias.const_data_ptr<float>();
  p.running_mean = data_or_null(norm.running_mean);
  p.running_var = data_or_null(norm.running_var);
  p.counter = norm.counter.defined() ? norm.counter.mutable_data_ptr<std::int64_t>() : nullptr;
  p.mean = out.mean.mutable_data_ptr<float>();
  p.invstd = out.invstd.mutable_data_ptr<float>();
  p.momentum = static_cast<float>(norm.momentum);
  p.eps = static_cast<float>(norm.eps);
  p.relu = activation == NormActivation::kRelu;
  const at::Tensor partial = make_partial(p, x);
  if (x.device().is_cuda()) {
    run_on_current_stream(x.device(), [&](void* stream) { launch_batch_norm(p, stream); });
    return out;
  }
  at::parallel_for(0, partial.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    batch_norm_statistics_cpu(p, first, last);
  });
  batch_norm_finish_cpu(p);
  at::parallel_for(0, p.rows, grain(p.channels), [&](std::int64_t first, std::int64_t last) {
    batch_norm_apply_cpu(p, first, last);
  });
  return out;
}

struct Gradients {
  at::Tensor x, residual, weight, bias;
};

/// `y` undefined: the mask follows from x.
Gradients gradients(const at::Tensor& x, const at::Tensor& y, const Normed& saved,
                    const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& g,
                    bool relu, bool wants_residual) {
  Gradients out{at::empty_like(x), {}, per_channel(x), per_channel(x)};
  // Without a ReLU the gradient of the sum is that of its terms.
  if (wants_residual) out.residual = relu ? at::empty_like(x) : g;
  const at::Tensor scales = weight.contiguous(), shifts = bias.contiguous();
  BatchNormBackwardParams p;
  set_rows(p, x);
  p.x = x.const_data_ptr();
  p.y = y.defined() ? y.const_data_ptr() : nullptr;
  p.g = g.const_data_ptr();
  p.dx = out.x.mutable_data_ptr();
  p.dresidual = wants_residual && relu ? out.residual.mutable_data_ptr() : nullptr;
  p.weight = scales.const_data_ptr<float>();
  p.bias = shifts.const_data_ptr<float>();
  p.mean = saved.mean.const_data_ptr<float>();
  p.invstd = saved.invstd.const_data_ptr<float>();
  p.dweight = out.weight.mutable_data_ptr<float>();
  p.dbias = out.bias.mutable_data_ptr<float>();
  p.relu = relu;
  const at::Tensor partial = make_partial(p, x);
  if (x.device().is_cuda()) {
    run_on_current_stream(x.device(), [&](void* stream) { launch_batch_norm_backward(p, stream); });
    return out;
  }
  at::parallel_for(0, partial.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    batch_norm_backward_sums_cpu(p, first, last);
  });
  batch_norm_backward_finish_cpu(p);
  at::parallel_for(0, p.rows, grain(p.channels), [&](std::int64_t first, std::int64_t last) {
    batch_norm_backward_apply_cpu(p, first, last);
  });
  return out;
}

class BatchNormTrain : public torch::autograd::Function<BatchNormTrain> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const std::optional<at::Tensor>& residual, const BatchNormTensors& norm,
                            bool relu) {
    const Normed out = by_kernel(x, norm, residual.value_or(at::Tensor()),
                                 relu ? NormActivation::kRelu : NormActivation::kNone);
    const bool keeps_y = relu && residual.has_value();
    ctx->save_for_backward({x, weight, bias, out.mean, out.invstd, keeps_y ? out.y : at::Tensor()});
    ctx->saved_data["relu"] = relu;
    ctx->saved_data["residual"] = residual.has_value();
    return out.y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const bool wants_residual = ctx->saved_data["residual"].toBool() && ctx->needs_input_grad(3);
    Gradients out = gradients(saved[0], saved[5], {{}, saved[3], saved[4]}, saved[1], saved[2],
                              grads[0].contiguous(at::MemoryFormat::ChannelsLast),
                              ctx->saved_data["relu"].toBool(), wants_residual);
    return {std::move(out.x),        std::move(out.weight), std::move(out.bias),
            std::move(out.residual), at::Tensor(),          at::Tensor()};
  }
};

}  // namespace

at::Tensor batch_norm_train(const at::Tensor& x, const BatchNormTensors& norm,
                            const at::Tensor& residual, NormActivation activation) {
  ESPALIER_ASSERT(x.dim() == 4 && norm.weight.sizes() == at::IntArrayRef{x.size(1)});
  ESPALIER_ASSERT(!residual.defined() || residual.sizes() == x.sizes());
  if (x.numel() == x.size(1)) {
    throw Error(ErrorKind::kInput, "batch norm",
                "a batch of one value per channel has no statistics to normalise with")
        .hint("use a larger --batch-size, or larger images");
  }
  if (!has_kernel(x, norm)) return composed(x, norm, residual, activation);
  const at::Tensor sum =
      residual.defined() && residual.scalar_type() == x.scalar_type()
          ? residual.contiguous(at::MemoryFormat::ChannelsLast)
          : (residual.defined()
                 ? residual.to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast)
                 : at::Tensor());
  if (needs_grad(x, norm.weight, norm.bias, sum))
    return BatchNormTrain::apply(x, norm.weight, norm.bias,
                                 sum.defined() ? std::optional(sum) : std::nullopt, norm,
                                 activation == NormActivation::kRelu);
  return by_kernel(x, norm, sum, activation).y;
}

#ifndef ESPALIER_CUDA
// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_batch_norm(const BatchNormParams&, void*) { ESPALIER_ASSERT(cuda_kernels_built()); }
void launch_batch_norm_backward(const BatchNormBackwardParams&, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
#endif

}  // namespace espalier
