// A convolutional classifier: made fresh or loaded from public checkpoints, run with a look at its
// hidden features, cut down to some of its layers, saved as a folder. Plain structs of tensors
// (resnet.h, vgg.h, nats_net.h) behind one type; it knows no training and no paper.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/cnn/config.h"
#include "espalier/models/cnn/nats_net.h"
#include "espalier/models/cnn/resnet.h"
#include "espalier/models/cnn/vgg.h"
#include "espalier/nn/batch_norm.h"
#include "espalier/nn/visit.h"

namespace espalier {

/// One layer of the hidden set.
struct HiddenLayer {
  std::string name;           // as in the checkpoint: conv1, layer2.3, features.7, cells.4
  std::int64_t stage = -1;    // -1: the stem of a ResNet or a cell net
  std::int64_t original = 0;  // its index within the stage of the whole net
  bool is_protected = false;  // the stem, or the first of its stage
  std::int64_t parameters = 0;
};

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

struct LayerDropOptions {
  /// Lets the first layer of a stage go. Where it owned the change of channels or size, the next
  /// kept layer takes its slot and starts from random weights.
  bool allow_stage_head_drop = false;
  std::uint64_t seed = 0;  // of those weights
};

/// Copies share their tensors; `clone` makes new ones.
class Cnn {
 public:
  /// Random weights, a function of (config, seed) alone, as the family's reference: CIFAR ResNets
  /// Kaiming-normal over fan-in (convolutions and head); torchvision's ResNets and VGG
  /// Kaiming-normal over fan-out; torch's default elsewhere. float32 on the CPU.
  static Cnn make(const CnnConfig& config, std::uint64_t seed);

  /// A folder of `save` (`arch` empty or as its config says), or a single file of public names
  /// (.safetensors, .pth, .th) with `arch`, whose classes and input channels follow from the
  /// tensors' shapes. Wrappers of trainers are taken off: an outer dict (state_dict, model, net)
  /// and the prefix `module.`. float16, bfloat16 and float64 become float32; a missing
  /// num_batches_tracked is 0.
  ///
  /// Throws Error(kInput) naming every missing and unexpected tensor, wrong shapes, NaN or infinite
  /// weights; Error(kUsage) without the arch a file needs.
  static Cnn load(const std::filesystem::path& path, const std::string& arch = "");

  /// Writes config.json and model.safetensors (public names) into `folder`, which is made when it
  /// is not there.
  void save(const std::filesystem::path& folder) const;

  const CnnConfig& config() const { return config_; }
  /// For callers that set what the images are (classes, normalisation).
  void set_images(std::int64_t image_size, std::vector<double> mean, std::vector<double> std,
                  std::vector<std::string> classes);

  /// images [n, c, h, w], normalised, float32 or bfloat16, any memory format, on the net's device
  /// -> logits [n, classes] of the same dtype. Weights are cast to that dtype on the fly (norms
  /// stay float32), so that float32 masters train in bfloat16. Differentiable. kBatch mode updates
  /// the running statistics in place.
  at::Tensor forward(const at::Tensor& images, NormMode mode) const;

  /// The same, calling `visit(index, feature)` for each layer of the hidden set in order. ResNet:
  /// the stem convolution's output before its norm, then every block's output; VGG: every
  /// convolution's output before its norm; cell nets: `stem.0`, then the 17 cells. Features
  /// [n, c, h, w] are part of the autograd graph and are not written to afterwards.
  at::Tensor forward_hidden(const at::Tensor& images, NormMode mode,
                            const FeatureVisitor& visit) const;

  std::vector<HiddenLayer> hidden_layers() const;
  /// The trained tensors of one hidden layer, its norms included (the stem: conv1 and bn1).
  std::vector<NamedTensor> hidden_parameters(std::int64_t index) const;

  /// Every parameter and buffer under its public name; see nn/visit.h.
  template <class V>
  void visit(V&& slot) {
    std::visit([&](auto& net) { net.visit(slot); }, net_);
  }
  /// What training changes by gradients: everything but the norms' statistics and counters.
  std::vector<NamedTensor> parameters() const;
  /// Statistics and counters of the norms.
  std::vector<NamedTensor> buffers() const;
  std::int64_t parameter_count() const;
  /// The same of a net that is not made: its tensors are never touched.
  static std::int64_t count_parameters(const CnnConfig& config) {
    return Cnn(config).parameter_count();
  }

  /// The net without some hidden layers; weights are shared, but for re-initialised stage heads
  /// (each is a warning). `kept_hidden` ascending. Throws Error(kUsage) naming the stage and the
  /// offered fix when the stem, a stage head (unless allowed) or a whole stage would go where
  /// channels do not fit; Error(kUnsupported) for cell nets.
  Cnn with_layers(const std::vector<std::int64_t>& kept_hidden, const LayerDropOptions& options,
                  Reporter& reporter) const;

  /// On another device, matrices and kernels of `type` (vectors keep theirs: norms stay float32),
  /// convolutions in `format`. Tensors that are so already are shared; the others are new, without
  /// gradients.
  Cnn to(at::Device device, at::ScalarType type,
         at::MemoryFormat format = at::MemoryFormat::Contiguous) const;
  Cnn clone() const;
  at::Device device() const;

  /// Dropout of nets that have it (VGG, rate 0.5) in kBatch mode: none until masks are set.
  void set_dropout(std::shared_ptr<const DropoutState> masks) { masks_ = std::move(masks); }

 private:
  explicit Cnn(CnnConfig config);

  CnnConfig config_;
  std::variant<Resnet, Vgg, NatsNet> net_;
  std::shared_ptr<const DropoutState> masks_;
};

}  // namespace espalier
