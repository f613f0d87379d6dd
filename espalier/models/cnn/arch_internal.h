// The shapes behind the public names. Internal to models/cnn.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "espalier/models/cnn/config.h"

namespace espalier {

/// Images an architecture was published for.
struct CnnImages {
  std::int64_t size = 32;
  std::vector<double> mean, std;
};

/// A whole ResNet or VGG.
struct CnnArch {
  CnnFamily family = CnnFamily::kCifarResnet;
  std::vector<std::int64_t> lengths;  // blocks or convolutions per stage
  std::vector<std::int64_t> widths;   // channels that each stage puts out
  bool bottleneck = false;            // ResNet: blocks of 1x1, 3x3, 1x1
  bool imagenet = false;              // VGG: torchvision's classifier
};

/// nullopt for names that are neither a ResNet nor a VGG of ours.
std::optional<CnnArch> find_arch(const std::string& name);
/// The same for a name that has been checked.
CnnArch arch_of(const CnnConfig& config);

inline constexpr std::int64_t kNatsCells = 17;

/// Layers per stage of the whole net.
std::vector<std::int64_t> whole_lengths(const CnnConfig& config);

/// True when stage `stage` puts out what it takes in, so that nothing may be left of it.
bool may_be_empty(const CnnConfig& config, std::size_t stage);

}  // namespace espalier
