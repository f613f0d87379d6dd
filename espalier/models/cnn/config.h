// What a convolutional classifier is made of: its public name, the layers that are left of it, its
// classes and the normalisation of its images. config.json of a CNN folder holds exactly this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

enum class CnnFamily : std::uint8_t {
  kCifarResnet,  // resnet20 ... resnet1202: three stages of basic blocks, shortcuts without weights
  kResnet,       // torchvision's resnet18, 34, 50, 101, 152
  kVgg,          // vgg16_bn, vgg19_bn (CIFAR layout), vgg16_bn_4096, vgg19_bn_4096 (torchvision's)
  kNatsCell,     // 17 cells of the NATS-Bench topology space, named by the cell's string
};

struct CnnConfig {
  std::string arch;  // public name of the whole net, or a cell string
  CnnFamily family = CnnFamily::kCifarResnet;
  /// Per stage, ascending, the original indices of the layers that are left: residual blocks, VGG
  /// convolutions (counted within their stage), or (one stage) the 17 cells. The first of a stage
  /// has the stage head's shape, whatever its index.
  std::vector<std::vector<std::int64_t>> stages;
  std::int64_t num_classes = 10;
  std::int64_t in_channels = 3;
  std::int64_t image_size = 32;      // of training; the nets take any size their strides allow
  std::vector<double> mean, std;     // per channel, of pixels in [0, 1]
  std::vector<std::string> classes;  // names, sorted; may be empty

  bool operator==(const CnnConfig&) const = default;
};

/// The whole net of a public name. CIFAR names (resnet{6n+2} from 8 to 1202 but 50 and 152,
/// vgg16_bn, vgg19_bn, cell strings) get CIFAR-10's normalisation and 32 pixels; torchvision's get
/// ImageNet's and 224.
///
/// Throws Error(kUsage) naming the nearest known names, for num_classes < 1, and for a cell string
/// that is malformed or has no path from input to output (see nats_cell.h).
CnnConfig cnn_config(const std::string& arch, std::int64_t num_classes);

/// The names cnn_config knows, apart from cell strings and unusual depths of CIFAR ResNets.
const std::vector<std::string>& cnn_arch_names();

/// Reads config.json. Throws Error(kInput) with every problem: unknown keys (with the nearest known
/// one), missing keys, wrong types, an unknown architecture, counts that do not fit it, a mean that
/// does not fit the channels; malformed JSON is reported with line and column.
CnnConfig parse_cnn_config(std::string_view json, std::string_view source);

/// The text of config.json.
std::string cnn_config_json(const CnnConfig& config);

/// Throws Error(kInput) with both numbers, all problems at once, when images of that many channels
/// and classes cannot go through the net. `subject` names the images.
void check_images_fit(const CnnConfig& config, std::int64_t channels, std::int64_t classes,
                      const std::string& subject = "images");

/// True for a folder whose config.json says that it holds a CNN of ours. Never throws.
bool is_cnn_folder(const std::filesystem::path& path);

/// "[6, 1, 6]": how many layers each stage has left.
std::string stage_counts_text(const CnnConfig& config);

}  // namespace espalier
