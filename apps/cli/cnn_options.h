// The options of verbs that read a CNN and labelled images.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/data/image_set.h"
#include "espalier/eval/image_sample.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/options/options.h"

#include "apps/cli/command.h"

namespace espalier::cli {

/// Which images, and how they become numbers.
struct ImageOptions {
  std::string split;
  std::vector<std::string> mean, std;
  std::string grey = "refuse";
  std::int64_t resize = 0, crop = 0;
  bool skip_broken = false;

  template <class V>
  void visit(V&& option) {
    option.group("Images");
    option("split", split,
           "the folder above the class folders to take, such as train or test; default: the only "
           "one, else train for `train` and test for everything that measures",
           placeholder("NAME"));
    option("mean", mean,
           "normalisation per channel of pixels in [0, 1]; default: what the model's folder says",
           placeholder("X,..."));
    option("std", std, "likewise", placeholder("X,..."));
    option("resize", resize,
           "scale the shorter side to this many pixels, then cut out the middle; 0: images are "
           "taken as they are",
           at_least(0));
    option("crop", crop, "side of the square cut out after --resize; 0 takes --resize",
           at_least(0));
    option("grey", grey, "images with one channel (or three where one is wanted)",
           one_of({"refuse", "convert"}));
    option("skip_broken", skip_broken, "leave out images that do not decode, and count them");
  }
};

/// True when MODEL is a CNN: --arch was given, a CNN folder, or a .pth or .th file.
bool is_cnn(const std::string& model, const std::string& arch);

/// Loads MODEL (see Cnn::load) and applies --mean and --std. Error(kUsage) when those do not fit
/// its channels.
Cnn load_cnn(const std::string& model, const std::string& arch, const ImageOptions& options);

/// --mean and --std into the config, where they are given.
void set_normalisation(const ImageOptions& options, CnnConfig& config);

/// The images of --data; `preferred_split` where there are several and --split names none.
ImageSet load_images(const std::string& data, const ImageOptions& options, std::int64_t channels,
                     std::int64_t limit, const std::string& preferred_split, Reporter& reporter);

/// A CNN and the images it is measured on, for the verbs that take one where they otherwise take a
/// decoder: redundancy and prune. Images are read in a fixed order and never augmented.
struct CnnOptions {
  std::string data, arch;
  std::int64_t batches = 10, batch_size = 256;
  ImageOptions image;

  template <class V>
  void visit(V&& option) {
    option.group("CNNs");
    option("arch", arch,
           "public name of a network whose file is not a folder of ours: resnet56, resnet50, "
           "vgg16_bn, or a cell string",
           placeholder("NAME"));
    option("data", data, "images that a CNN is measured on: a folder of class folders, or a tar",
           placeholder("DIR"));
    option("batches", batches, "batches of images; the first ones, in round-robin over the classes",
           at_least(1));
    option("batch_size", batch_size, "images per batch", at_least(2));
    image.visit(option);
  }

  bool is_cnn(const std::string& model) const { return cli::is_cnn(model, arch); }
  /// On the device of --device; see load_cnn.
  Cnn load(const std::string& model, const Context& context) const;
  /// The images of --data, checked against `net`. Throws Error(kUsage) without --data, and what
  /// load_image_set and check_image_sample throw.
  ImageSample images(const Cnn& net, at::ScalarType type, Reporter& reporter) const;
};

/// SHA-256 of all pixels and labels of a set.
std::string images_sha256(const ImageSet& images);

/// SHA-256 of the pixels and labels that the batches hold.
std::string sample_sha256(const ImageSample& images);

}  // namespace espalier::cli
