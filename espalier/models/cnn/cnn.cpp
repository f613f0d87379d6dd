// Cnn as a whole: dispatch over the families, tensors by name, devices. Initial weights are in
// initial_weights.cpp, files in checkpoint.cpp, dropping layers in with_layers.cpp.
#include "espalier/models/cnn/cnn.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/cnn/initial_weights_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

bool is_buffer(std::string_view name) {
  return name.ends_with(".running_mean") || name.ends_with(".running_var") ||
         name.ends_with(".num_batches_tracked");
}

/// Vectors stay as they are: those of norms are float32 always, biases are cheap to cast.
bool follows_type(const at::Tensor& tensor) { return tensor.dim() >= 2; }

std::vector<NamedTensor> tensors_where(Cnn net, const std::function<bool(std::string_view)>& take) {
  std::vector<NamedTensor> found;
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) {
    if (take(name)) found.push_back({name, tensor});
  });
  return found;
}

}  // namespace

Cnn::Cnn(CnnConfig config) : config_(std::move(config)) {
  switch (config_.family) {
    case CnnFamily::kCifarResnet:
    case CnnFamily::kResnet:
      net_ = empty_resnet(config_);
      break;
    case CnnFamily::kVgg:
      net_ = empty_vgg(config_);
      break;
    case CnnFamily::kNatsCell:
      net_ = empty_nats_net(config_);
      break;
  }
}

Cnn Cnn::make(const CnnConfig& config, std::uint64_t seed) {
  Cnn net(config);
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) {
    initialise_tensor(config, name, tensor, seed);
  });
  return net;
}

void Cnn::set_images(std::int64_t image_size, std::vector<double> mean, std::vector<double> std,
                     std::vector<std::string> classes) {
  config_.image_size = image_size;
  config_.mean = std::move(mean);
  config_.std = std::move(std);
  config_.classes = std::move(classes);
}

at::Tensor Cnn::forward(const at::Tensor& images, NormMode mode) const {
  return forward_hidden(images, mode, {});
}

at::Tensor Cnn::forward_hidden(const at::Tensor& images, NormMode mode,
                               const FeatureVisitor& visit) const {
  check_shape(images, {-1, config_.in_channels, -1, -1}, "images");
  const CnnPass pass{.mode = mode, .visit = visit, .dropout = masks_.get()};
  return std::visit([&](const auto& net) { return net.forward(images, pass); }, net_);
}

std::vector<NamedTensor> Cnn::parameters() const {
  return tensors_where(*this, [](std::string_view name) { return !is_buffer(name); });
}

std::vector<NamedTensor> Cnn::buffers() const { return tensors_where(*this, is_buffer); }

std::int64_t Cnn::parameter_count() const {
  std::int64_t count = 0;
  for (const NamedTensor& parameter : parameters()) count += parameter.tensor.numel();
  return count;
}

Cnn Cnn::to(at::Device device, at::ScalarType type, at::MemoryFormat format) const {
  Cnn moved = *this;
  for_each_tensor(moved, "", [&](const std::string&, at::Tensor& tensor) {
    const at::ScalarType wanted = follows_type(tensor) ? type : tensor.scalar_type();
    const at::Tensor there = tensor.dim() == 4
                                 ? tensor.to(tensor.options().device(device).dtype(wanted),
                                             /*non_blocking=*/false, /*copy=*/false, format)
                                 : tensor.to(device, wanted);
    if (!there.is_same(tensor)) tensor = there.detach();
  });
  return moved;
}

Cnn Cnn::clone() const {
  Cnn copy = *this;
  for_each_tensor(copy, "",
                  [](const std::string&, at::Tensor& tensor) { tensor = tensor.detach().clone(); });
  return copy;
}

at::Device Cnn::device() const { return parameters().front().tensor.device(); }

}  // namespace espalier
