// See image_sample.h.
#include "espalier/eval/image_sample.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/augment.h"

namespace espalier {

at::Tensor ImageSample::images(const Cnn& net, std::int64_t batch) const {
  const at::Tensor part = pixels.narrow(0, batch * batch_size, batch_size).to(net.device());
  return normalise(part, net.config().mean, net.config().std, type);
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
  const std::int64_t classes = images.labels.max().item<std::int64_t>() + 1;
  check_images_fit(net.config(), images.pixels.size(1), classes);
  if (classes == 1) {
    throw Error(ErrorKind::kInput, "images", "are all of a single class: nothing can be told apart")
        .hint("the data must be what the net was trained for: one folder per class");
  }
}

}  // namespace espalier
