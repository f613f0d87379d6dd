// Initial weights of each family. Sources: akamaster/pytorch_resnet_cifar10 (kaiming_normal_ on
// convolutions and the head), torchvision's resnet.py and vgg.py, chengyangfu/pytorch-vgg-cifar10
// (normal with variance 2 / (k k out)), NAS-Bench-201 (torch's defaults).
#include <cmath>

#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/initial_weights_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

/// torch's default for weights (kaiming_uniform_ with a = sqrt(5)) and biases alike.
void fill_default(at::Tensor& tensor, std::int64_t fan_in, const at::Generator& generator) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  tensor.uniform_(-bound, bound, generator);
}

double deviation(const at::Tensor& weight, bool fan_out) {
  const std::int64_t area = weight.dim() == 4 ? weight.size(2) * weight.size(3) : 1;
  return std::sqrt(2.0 / static_cast<double>(weight.size(fan_out ? 0 : 1) * area));
}

void initialise_weight(const CnnConfig& config, at::Tensor& weight,
                       const at::Generator& generator) {
  const bool conv = weight.dim() == 4;
  switch (config.family) {
    case CnnFamily::kCifarResnet:
      weight.normal_(0, deviation(weight, /*fan_out=*/false), generator);
      return;
    case CnnFamily::kResnet:
    case CnnFamily::kVgg:
      if (conv) {
        weight.normal_(0, deviation(weight, /*fan_out=*/true), generator);
        return;
      }
      if (config.family == CnnFamily::kVgg && arch_of(config).imagenet) {
        weight.normal_(0, 0.01, generator);
        return;
      }
      break;
    case CnnFamily::kNatsCell:
      break;
  }
  fill_default(weight, weight.numel() / weight.size(0), generator);
}

/// Columns of the dense layers, whose biases are drawn by fan-in.
std::int64_t dense_inputs(const CnnConfig& config) {
  switch (config.family) {
    case CnnFamily::kNatsCell:
      return 64;
    case CnnFamily::kVgg:
      return 512;
    case CnnFamily::kCifarResnet:
    case CnnFamily::kResnet:
      break;
  }
  return arch_of(config).widths.back();
}

}  // namespace

void initialise_tensor(const CnnConfig& config, const std::string& name, at::Tensor& tensor,
                       std::uint64_t seed) {
  const at::Generator generator = make_generator(seed, "cnn.weights." + name, 0, 0, at::kCPU);
  if (name.ends_with(".num_batches_tracked") || name.ends_with(".running_mean")) {
    tensor.zero_();
  } else if (name.ends_with(".running_var") || (tensor.dim() == 1 && name.ends_with(".weight"))) {
    tensor.fill_(1);  // of a norm
  } else if (tensor.dim() > 1) {
    initialise_weight(config, tensor, generator);
  } else if (name == "linear.bias" || name == "fc.bias" ||
             (name.starts_with("classifier.") &&
              !(config.family == CnnFamily::kVgg && arch_of(config).imagenet))) {
    fill_default(tensor, dense_inputs(config), generator);
  } else {
    tensor.zero_();  // biases of norms, of VGG's convolutions, of torchvision's VGG classifier
  }
}

}  // namespace espalier
