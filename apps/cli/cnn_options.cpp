// See cnn_options.h.
#include "apps/cli/cnn_options.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"

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

}  // namespace espalier::cli
