// See cnn_options.h.
#include "apps/cli/cnn_options.h"

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::cli {
namespace {

std::vector<double> per_channel(const char* flag, const std::vector<std::string>& words,
                                std::int64_t channels) {
  std::vector<double> values;
  for (const std::string& word : words) {
    double value = 0;
    detail::parse_value(flag, word, {}, value);
    values.push_back(value);
  }
  if (static_cast<std::int64_t>(values.size()) != channels) {
    throw Error(ErrorKind::kUsage, flag,
                format("has {} values, but the net takes {} channels", values.size(), channels));
  }
  return values;
}

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::string digest_of(const at::Tensor& pixels, const at::Tensor& labels, std::int64_t count) {
  const at::Tensor first = pixels.narrow(0, 0, count).contiguous();
  const at::Tensor of_first = labels.narrow(0, 0, count).contiguous();
  return sha256_hex(sha256_hex(bytes_of(first)) + sha256_hex(bytes_of(of_first)));
}

}  // namespace

bool is_cnn(const std::string& model, const std::string& arch) {
  const std::string suffix = std::filesystem::path(model).extension().string();
  return !arch.empty() || suffix == ".pth" || suffix == ".th" || is_cnn_folder(model);
}

void set_normalisation(const ImageOptions& options, CnnConfig& config) {
  if (!options.mean.empty()) config.mean = per_channel("--mean", options.mean, config.in_channels);
  if (options.std.empty()) return;
  config.std = per_channel("--std", options.std, config.in_channels);
  for (const double value : config.std) {
    if (value > 0) continue;
    throw Error(ErrorKind::kUsage, "--std", format("is {}, but must be above 0", value));
  }
}

Cnn load_cnn(const std::string& model, const std::string& arch, const ImageOptions& options) {
  Cnn net = Cnn::load(model, arch);
  CnnConfig config = net.config();
  set_normalisation(options, config);
  net.set_images(config.image_size, config.mean, config.std, config.classes);
  return net;
}

ImageSet load_images(const std::string& data, const ImageOptions& options, std::int64_t channels,
                     std::int64_t limit, const std::string& preferred_split, Reporter& reporter) {
  ImageSetOptions set;
  set.split = options.split;
  set.preferred_split = preferred_split;
  set.limit = limit;
  set.channels = channels;
  set.grey = options.grey == "convert" ? GreyRule::kConvert : GreyRule::kRefuse;
  set.broken = options.skip_broken ? BrokenRule::kSkip : BrokenRule::kRefuse;
  set.resize = options.resize;
  set.crop = options.crop;
  return load_image_set(data, set, reporter);
}

Cnn CnnOptions::load(const std::string& model, const Context& context) const {
  const Cnn net = load_cnn(model, arch, image);
  const at::Device device = parse_device(context.common.device);
  return device.is_cpu() ? net : net.to(device, at::kFloat, at::MemoryFormat::ChannelsLast);
}

ImageSample CnnOptions::images(const Cnn& net, at::ScalarType type, Reporter& reporter) const {
  if (data.empty()) {
    throw Error(ErrorKind::kUsage, "--data", "is missing: a CNN is measured on images")
        .hint("--data DIR with one folder of images per class");
  }
  ImageSet set =
      load_images(data, image, net.config().in_channels, batches * batch_size, "test", reporter);
  if (!set.broken.empty())
    reporter.warn(format("{} images do not decode and are left out", set.broken.size()));
  // All classes of the data, where the sample may hold few of them.
  check_images_fit(net.config(), set.channels(), static_cast<std::int64_t>(set.classes.size()),
                   data);
  ImageSample sample;
  sample.pixels = std::move(set.pixels);
  sample.labels = std::move(set.labels);
  sample.batches = batches;
  sample.batch_size = batch_size;
  sample.type = type;
  check_image_sample(net, sample);
  return sample;
}

std::string images_sha256(const ImageSet& images) {
  return digest_of(images.pixels, images.labels, images.size());
}

std::string sample_sha256(const ImageSample& images) {
  return digest_of(images.pixels, images.labels, images.batches * images.batch_size);
}

}  // namespace espalier::cli
