// See cnn_options.h.
#include "apps/cli/cnn_options.h"

#include <charconv>
#include <filesystem>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/data/image_set.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::cli {
namespace {

std::vector<double> numbers(const char* flag, const std::vector<std::string>& words,
                            std::int64_t channels, bool positive) {
  std::vector<double> values;
  for (const std::string& word : words) {
    double value = 0;
    const auto [rest, code] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (code != std::errc() || rest != word.data() + word.size() || (positive && !(value > 0)))
      throw Error(ErrorKind::kUsage, flag,
                  format("`{}` is not a {}number", word, positive ? "positive " : ""));
    values.push_back(value);
  }
  if (static_cast<std::int64_t>(values.size()) != channels) {
    throw Error(
        ErrorKind::kUsage, flag,
        format("has {} numbers, but the network reads {} channels", values.size(), channels));
  }
  return values;
}

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace

bool CnnOptions::is_cnn(const std::string& model) const {
  const std::filesystem::path path(model);
  return !arch.empty() || is_cnn_folder(path) || path.extension() == ".pth" ||
         path.extension() == ".th";
}

Cnn CnnOptions::load(const std::string& model, const Context& context) const {
  Cnn net = Cnn::load(model, arch);
  const CnnConfig& config = net.config();
  net.set_images(config.image_size,
                 mean.empty() ? config.mean : numbers("--mean", mean, config.in_channels, false),
                 std.empty() ? config.std : numbers("--std", std, config.in_channels, true),
                 config.classes);
  const at::Device device = parse_device(context.common.device);
  return device.is_cpu() ? net : net.to(device, at::kFloat, at::MemoryFormat::ChannelsLast);
}

ImageSample CnnOptions::images(const Cnn& net, at::ScalarType type, Reporter& reporter) const {
  if (data.empty()) {
    throw Error(ErrorKind::kUsage, "--data", "is missing: a CNN is measured on images")
        .hint("--data DIR with one folder of images per class");
  }
  ImageSetOptions options;
  options.split = split;
  options.limit = batches * batch_size;
  options.channels = net.config().in_channels == 1 ? 1 : 3;
  options.resize = resize;
  options.broken = skip_broken ? BrokenRule::kSkip : BrokenRule::kRefuse;
  ImageSet set = load_image_set(data, options, reporter);
  if (!set.broken.empty())
    reporter.warn(format("{} images do not decode and are left out", set.broken.size()));
  const auto classes = static_cast<std::int64_t>(set.classes.size());
  if (classes > net.config().num_classes) {
    throw Error(ErrorKind::kInput, data,
                format("holds {} classes, but the network has {} outputs", classes,
                       net.config().num_classes));
  }
  ImageSample sample;
  sample.pixels = std::move(set.pixels);
  sample.labels = std::move(set.labels);
  sample.batches = batches;
  sample.batch_size = batch_size;
  sample.type = type;
  check_image_sample(net, sample);
  return sample;
}

std::string sample_sha256(const ImageSample& images) {
  const std::int64_t count = images.batches * images.batch_size;
  const at::Tensor pixels = images.pixels.narrow(0, 0, count).contiguous();
  const at::Tensor labels = images.labels.narrow(0, 0, count).contiguous();
  return sha256_hex(sha256_hex(bytes_of(pixels)) + sha256_hex(bytes_of(labels)));
}

}  // namespace espalier::cli
