// Augmentation of image batches: random crop, mirror image, rotation, as one gather of pixels, and
// normalisation. What happens to an image is a pure function of (seed, epoch, image), whatever
// batch it is in and on whatever device.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

struct AugmentOptions {
  std::int64_t crop_pad = 0;  // zero pixels around the image, out of which its size is cropped
  bool flip = false;          // every second image is mirrored, left to right
  double rotation = 0;        // up to this many degrees either way, nearest pixel, zeros outside

  bool any() const { return crop_pad > 0 || flip || rotation > 0; }
};

/// What to do with each image of a batch: [rows, 5] int64 on the CPU: crop row and column in
/// 0..2 crop_pad, mirrored or not, cosine and sine of the angle times 2^46 (counter-clockwise, even
/// within -rotation..rotation). The angle becomes integers here, on the host, so that a GPU takes
/// the same pixels as the CPU. Turning one option on or off does not change the draws of the
/// others.
at::Tensor augment_draws(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                         const std::vector<std::int64_t>& rows);

/// `batch` uint8 [n, c, h, w], `draws` of its images on the same device -> the same shape. Crop,
/// then mirror, then rotation (torchvision's order in the usual recipe). The rotation is Pillow's
/// rotate() bit for bit, hence torchvision's RandomRotation on images: nearest pixel in 16.16 fixed
/// point, around the middle, zeros outside. Sides below 16384. A few tensor operations on integers
/// whatever the batch, none of which asks the host: the same on every device.
at::Tensor apply_augment(const at::Tensor& batch, const at::Tensor& draws,
                         const AugmentOptions& options);

/// (pixel / 255 - mean) / std per channel: uint8 [n, c, h, w] -> the same shape in `type`, computed
/// in float32. Empty mean and std: pixel / 255.
at::Tensor normalise(const at::Tensor& batch, const std::vector<double>& mean,
                     const std::vector<double>& std, at::ScalarType type);

}  // namespace espalier
