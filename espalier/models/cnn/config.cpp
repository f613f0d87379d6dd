// Public names and their shapes; config.json is in config_json.cpp.
#include "espalier/models/cnn/config.h"

#include <charconv>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/nats_cell.h"
#include "espalier/options/options.h"

namespace espalier {
namespace {

const CnnImages kCifarImages{32, {0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}};
const CnnImages kImagenetImages{224, {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};

/// 56 from "resnet56"; 0 for anything else.
std::int64_t resnet_depth(const std::string& name) {
  constexpr std::string_view kPrefix = "resnet";
  if (!name.starts_with(kPrefix) || name.size() > kPrefix.size() + 4) return 0;
  const char* end = name.data() + name.size();
  std::int64_t depth = 0;
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, depth);
  const bool plain = error == std::errc() && stop == end && name[kPrefix.size()] != '0';
  return plain ? depth : 0;
}

std::optional<CnnArch> find_resnet(std::int64_t depth) {
  const std::vector<std::int64_t> basic{64, 128, 256, 512}, wide{256, 512, 1024, 2048};
  switch (depth) {
    case 18:
      return CnnArch{CnnFamily::kResnet, {2, 2, 2, 2}, basic};
    case 34:
      return CnnArch{CnnFamily::kResnet, {3, 4, 6, 3}, basic};
    case 50:
      return CnnArch{CnnFamily::kResnet, {3, 4, 6, 3}, wide, true};
    case 101:
      return CnnArch{CnnFamily::kResnet, {3, 4, 23, 3}, wide, true};
    case 152:
      return CnnArch{CnnFamily::kResnet, {3, 8, 36, 3}, wide, true};
    default:
      break;
  }
  if (depth < 8 || depth > 1202 || (depth - 2) % 6 != 0) return std::nullopt;
  const std::int64_t n = (depth - 2) / 6;
  return CnnArch{CnnFamily::kCifarResnet, {n, n, n}, {16, 32, 64}};
}

/// "resnet56, resnet50 or vgg16_bn": known names near `name`.
std::string suggestion(const std::string& name) {
  const std::string near = nearest(name, cnn_arch_names());
  if (!near.empty()) return format("did you mean {}?", near);
  std::string list;
  for (const std::string& known : cnn_arch_names()) list += (list.empty() ? "" : ", ") + known;
  return format("known: {}, or a cell such as {}", list,
                "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|");
}

}  // namespace

const std::vector<std::string>& cnn_arch_names() {
  static const std::vector<std::string> names{
      "resnet20",   "resnet32", "resnet44", "resnet56",      "resnet110",
      "resnet1202", "resnet18", "resnet34", "resnet50",      "resnet101",
      "resnet152",  "vgg16_bn", "vgg19_bn", "vgg16_bn_4096", "vgg19_bn_4096"};
  return names;
}

std::optional<CnnArch> find_arch(const std::string& name) {
  if (const std::int64_t depth = resnet_depth(name); depth > 0) return find_resnet(depth);
  const std::vector<std::int64_t> widths{64, 128, 256, 512, 512};
  for (const bool imagenet : {false, true}) {
    const std::string tail = imagenet ? "_bn_4096" : "_bn";
    if (name == "vgg16" + tail)
      return CnnArch{CnnFamily::kVgg, {2, 2, 3, 3, 3}, widths, false, imagenet};
    if (name == "vgg19" + tail)
      return CnnArch{CnnFamily::kVgg, {2, 2, 4, 4, 4}, widths, false, imagenet};
  }
  return std::nullopt;
}

CnnArch arch_of(const CnnConfig& config) {
  std::optional<CnnArch> arch = find_arch(config.arch);
  ESPALIER_ASSERT(arch.has_value() && arch->family == config.family);
  return *std::move(arch);
}

std::vector<std::int64_t> whole_lengths(const CnnConfig& config) {
  if (config.family == CnnFamily::kNatsCell) return {kNatsCells};
  return arch_of(config).lengths;
}

bool may_be_empty(const CnnConfig& config, std::size_t stage) {
  if (config.family == CnnFamily::kNatsCell) return false;
  const CnnArch arch = arch_of(config);
  if (stage > 0)
    return arch.family == CnnFamily::kVgg && arch.widths[stage - 1] == arch.widths[stage];
  const std::int64_t stem = arch.family == CnnFamily::kCifarResnet ? 16 : 64;
  return arch.family != CnnFamily::kVgg && stem == arch.widths[0];
}

CnnConfig cnn_config(const std::string& arch, std::int64_t num_classes) {
  if (num_classes < 1) {
    throw Error(ErrorKind::kUsage, "classes",
                format("{} classes were asked for, at least 1 is needed", num_classes));
  }
  CnnConfig config;
  config.arch = arch;
  config.num_classes = num_classes;
  bool imagenet = false;
  if (arch.starts_with('|')) {
    check_nats_cell(parse_nats_cell(arch));
    config.family = CnnFamily::kNatsCell;
  } else {
    const std::optional<CnnArch> found = find_arch(arch);
    if (!found) {
      throw Error(ErrorKind::kUsage, "--arch", format("`{}` is not a network we know", arch))
          .hint(suggestion(arch));
    }
    config.family = found->family;
    imagenet = found->imagenet || found->family == CnnFamily::kResnet;
  }
  for (const std::int64_t length : whole_lengths(config)) {
    config.stages.emplace_back(length);
    std::iota(config.stages.back().begin(), config.stages.back().end(), 0);
  }
  const CnnImages& images = imagenet ? kImagenetImages : kCifarImages;
  config.image_size = images.size;
  config.mean = images.mean;
  config.std = images.std;
  return config;
}

std::string stage_counts_text(const CnnConfig& config) {
  std::string text;
  for (const auto& stage : config.stages) {
    text += format("{}{}", text.empty() ? "" : ", ", stage.size());
  }
  return "[" + text + "]";
}

void check_images_fit(const CnnConfig& config, std::int64_t channels, std::int64_t classes,
                      const std::string& subject) {
  ProblemList problems(ErrorKind::kInput, subject);
  if (channels != config.in_channels)
    problems.add(format("{} channels, but the net takes {}", channels, config.in_channels));
  if (classes > config.num_classes)
    problems.add(format("{} classes, but the net has {} outputs", classes, config.num_classes));
  problems.throw_if_any("the data must be what the net was trained for: one folder per class");
}

}  // namespace espalier
