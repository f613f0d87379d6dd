// See image_sample.h.
#include "espalier/eval/image_sample.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {

at::Tensor ImageSample::images(const Cnn& net, std::int64_t batch) const {
  const CnnConfig& config = net.config();
  const at::Device device = net.device();
  const auto per_channel = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kFloat).to(device).view({1, -1, 1, 1});
  };
  const at::Tensor x =
      pixels.narrow(0, batch * batch_size, batch_size).to(device).to(at::kFloat).div_(255);
  return x.sub_(per_channel(config.mean)).div_(per_channel(config.std)).to(type);
}

at::Tensor ImageSample::targets(const Cnn& net, std::int64_t batch) const {
  return labels.narrow(0, batch * batch_size, batch_size).to(net.device());
}

void check_image_sample(const Cnn& net, const ImageSample& images) {
  ESPALIER_ASSERT(images.pixels.dim() == 4 && images.labels.dim() == 1 &&
                  images.pixels.size(0) == images.labels.size(0));
  const std::int64_t count = images.pixels.size(0), wanted = images.batches * images.batch_size;
  if (images.batches < 1 || images.batch_size < 1 || wanted > count) {
    throw Error(ErrorKind::kUsage, "--batches",
                format("{} batches of {} are {} images, but there are {}", images.batches,
                       images.batch_size, wanted, count))
        .hint(
            format("--batches {} --batch-size {}",
                   std::max<std::int64_t>(1, count / std::max<std::int64_t>(1, images.batch_size)),
                   std::min(count, images.batch_size)));
  }
  const CnnConfig& config = net.config();
  ProblemList problems(ErrorKind::kInput, "images");
  if (images.pixels.size(1) != config.in_channels) {
    problems.add(format("have {} channel{}, but the network reads {}", images.pixels.size(1),
                        images.pixels.size(1) == 1 ? "" : "s", config.in_channels));
  }
  const std::int64_t classes = images.labels.max().item<std::int64_t>() + 1;
  if (classes > config.num_classes)
    problems.add(
        format("are of {} classes, but the network has {} outputs", classes, config.num_classes));
  if (classes == 1) problems.add(format("are all of a single class: nothing can be told apart"));
  problems.throw_if_any("the data must be what the network was trained for: one folder per class");
}

}  // namespace espalier
