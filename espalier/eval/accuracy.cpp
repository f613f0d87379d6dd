// See accuracy.h.
#include "espalier/eval/accuracy.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/augment.h"

namespace espalier {
namespace {

double share_error(double p, std::int64_t n) {
  return n > 0 ? std::sqrt(p * (1 - p) / static_cast<double>(n)) : 0;
}

/// Counts and summed loss of a batch, on the host.
struct BatchScores {
  std::int64_t right = 0, among_five = 0;
  double loss = 0;
};

BatchScores score(const at::Tensor& logits, const at::Tensor& labels) {
  // The rank of the label: classes above it, and equal ones of a lower number.
  const at::Tensor own = logits.gather(1, labels.unsqueeze(1));
  const at::Tensor numbers = at::arange(logits.size(1), labels.options());
  const at::Tensor before =
      logits.gt(own).logical_or(logits.eq(own).logical_and(numbers.lt(labels.unsqueeze(1))));
  const at::Tensor rank = before.sum(1);
  const at::Tensor loss = (at::logsumexp(logits.to(at::kDouble), 1) - own.squeeze(1)).sum();
  return {rank.eq(0).sum().item<std::int64_t>(), rank.lt(5).sum().item<std::int64_t>(),
          loss.item<double>()};
}

}  // namespace

double Accuracy::accuracy_stderr() const { return share_error(accuracy, n); }
double Accuracy::top5_stderr() const { return share_error(top5, n); }

Accuracy measure_accuracy(const Cnn& net, const ImageSet& images, std::int64_t batch_size,
                          at::ScalarType type, Reporter& reporter, const StopToken& stop) {
  ESPALIER_ASSERT(batch_size >= 1 && images.size() >= 1);
  check_images_fit(net.config(), images.channels(),
                   static_cast<std::int64_t>(images.classes.size()));
  const at::NoGradGuard no_grad;
  const at::Device device = net.device();
  const auto phase = reporter.phase("accuracy", images.size(), "images");
  BatchScores all;
  for (std::int64_t first = 0; first < images.size(); first += batch_size) {
    if (stop.stop_requested()) throw Interrupted{};
    const std::int64_t count = std::min(batch_size, images.size() - first);
    const at::Tensor x = normalise(images.pixels.narrow(0, first, count).to(device),
                                   net.config().mean, net.config().std, type)
                             .contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor logits = net.forward(x, NormMode::kRunning).to(at::kFloat);
    if (!at::isfinite(logits).all().item<bool>()) {
      const at::Tensor broken = at::isfinite(logits).all(1).logical_not().nonzero();
      const auto row = static_cast<std::size_t>(first + broken[0][0].item<std::int64_t>());
      throw Error(ErrorKind::kInput, images.files[row], "its logits are not finite")
          .hint("check the weights with `espalier verify`, or run with --dtype float32");
    }
    const BatchScores part = score(logits, images.labels.narrow(0, first, count).to(device));
    all.right += part.right;
    all.among_five += part.among_five;
    all.loss += part.loss;
    phase->update(first + count);
  }
  const auto n = static_cast<double>(images.size());
  return {static_cast<double>(all.right) / n, static_cast<double>(all.among_five) / n, all.loss / n,
          images.size()};
}

}  // namespace espalier
