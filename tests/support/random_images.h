// Images of noise with balanced labels, for tests that need a CNN's input and no meaning.
#pragma once

#include <ATen/ATen.h>

#include "espalier/eval/image_sample.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::testing_support {

inline ImageSample random_images(std::int64_t count, std::int64_t classes, std::int64_t batches,
                                 std::int64_t batch_size, std::uint64_t seed = 3) {
  at::Generator generator = make_generator(seed, "images", 0, 0, at::kCPU);
  ImageSample images;
  images.pixels = at::randint(0, 256, {count, 3, 16, 16}, generator, at::kByte);
  images.labels = at::arange(count, at::kLong).remainder(classes);
  images.batches = batches;
  images.batch_size = batch_size;
  return images;
}

}  // namespace espalier::testing_support
