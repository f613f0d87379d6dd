// A CNN and the images that it is measured on, for the verbs that take one where they otherwise
// take a decoder: redundancy and prune. Images are read in a fixed order and never augmented.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/eval/image_sample.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/options/options.h"

#include "apps/cli/command.h"

namespace espalier::cli {

struct CnnOptions {
  std::string data, arch, split;
  std::vector<std::string> mean, std;
  std::int64_t batches = 10, batch_size = 256, resize = 0;
  bool skip_broken = false;

  template <class V>
  void visit(V&& option) {
    option.group("CNNs");
    option("arch", arch,
           "public name of a network whose file is not a folder of ours: resnet56, resnet50, "
           "vgg16_bn, or a cell string",
           placeholder("NAME"));
    option("data", data, "images that a CNN is measured on: a folder of class folders, or a tar",
           placeholder("DIR"));
    option("split", split, "the folder above the class folders, when there are several",
           placeholder("NAME"));
    option("batches", batches, "batches of images; the first ones, in round-robin over the classes",
           at_least(1));
    option("batch_size", batch_size, "images per batch", at_least(2));
    option("mean", mean, "per channel, of pixels in [0, 1]; default: the network's own",
           placeholder("X,X,X"));
    option("std", std, "likewise", placeholder("X,X,X"));
    option("resize", resize,
           "scale the shorter side to this and cut the middle out; 0 takes images as they are",
           at_least(0));
    option("skip_broken", skip_broken, "leave out images that do not decode, and count them");
  }

  /// Whether `model` is a CNN: a folder of ours, a .pth or .th file, or anything with --arch.
  bool is_cnn(const std::string& model) const;
  /// Throws what Cnn::load throws; --mean and --std replace the config's.
  Cnn load(const std::string& model, const Context& context) const;
  /// The images of --data, checked against `net`. Throws Error(kUsage) without --data, and what
  /// load_image_set and check_image_sample throw.
  ImageSample images(const Cnn& net, at::ScalarType type, Reporter& reporter) const;
};

/// SHA-256 of the pixels and labels that the batches hold.
std::string sample_sha256(const ImageSample& images);

}  // namespace espalier::cli
