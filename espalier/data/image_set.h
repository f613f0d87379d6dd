// A labelled image collection as one tensor in memory: folders of class folders, archives of them,
// CIFAR's binary batches. Which images there are and in which order is image_index.h's answer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/data/image_index.h"

namespace espalier {

/// Images of one size, decoded.
struct ImageSet {
  at::Tensor pixels;                 // [n, c, h, w] uint8, CPU, contiguous
  at::Tensor labels;                 // [n] int64, positions in `classes`
  std::vector<std::string> classes;  // sorted
  std::vector<std::string> files;    // n names, relative to the folder or in the archive
  std::string split;                 // as chosen or found; empty when there is none
  std::vector<std::string> splits;   // every split there is, chosen or not
  std::vector<std::string> broken;   // files left out by BrokenRule::kSkip

  std::int64_t size() const { return static_cast<std::int64_t>(files.size()); }
  std::int64_t channels() const { return pixels.size(1); }
};

/// Reads and decodes the whole collection, in the order of index_images; `limit` takes the first of
/// it, and broken files among those are left out afterwards.
///
/// Decodes on ATen's threads; the result does not depend on their number. Progress and what was
/// ignored go to `reporter`.
/// Throws what index_images throws, and Error(kInput): images that do not decode (each named,
/// unless BrokenRule::kSkip), two sizes (both files named, unless `resize`), a channel count other
/// than asked for (GreyRule::kRefuse), a class whose files are all broken; Error(kResource) when
/// pixels and encoded bytes exceed options.max_memory. Memory: n*c*h*w bytes, and for an archive
/// its encoded images of the split until they are decoded.
ImageSet load_image_set(const std::filesystem::path& path, const ImageSetOptions& options,
                        Reporter& reporter);

/// The images of an index that is already made, as above.
ImageSet decode_image_set(ImageIndex index, const ImageSetOptions& options, Reporter& reporter);

}  // namespace espalier
