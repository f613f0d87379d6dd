// What lies in a folder or an archive, before it is known what it means: image files, folders,
// CIFAR's batch files. Both sources give the same listing, so that layout is decided once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/data/image_index.h"

namespace espalier {

struct ImageListing {
  bool archive = false;
  std::map<std::string, std::string> images;  // relative path -> bytes (archives; the split's only)
  std::set<std::string> folders;              // relative paths
  std::map<std::string, std::string> cifar;   // CIFAR's files, in the same way
  std::int64_t ignored = 0;                   // files that are neither, hidden ones not counted
  std::string first_ignored;
};

/// The relative path cut at its slashes.
std::vector<std::string> path_parts(std::string_view path);
/// The folder above the class folder of an image: `a/train` of `a/train/cat/1.png`, empty at the
/// top.
std::string split_folder_of(std::string_view image);
/// The last part of a path.
std::string last_part(std::string_view path);

/// CIFAR's batches by file name: "train", "test", or "" for a file that is none.
std::string_view cifar_split_of(std::string_view file_name);
/// Is it one of the files with class names?
bool is_cifar_names(std::string_view file_name);

ImageListing list_image_folder(const std::filesystem::path& path);
ImageListing list_image_archive(const std::filesystem::path& path, const ImageSetOptions& options,
                                Reporter& reporter);

/// The element of `folders` that options.split or, where that is empty, options.preferred_split
/// means; each stands for one split (its last part names it). Error(kInput) listing them when none
/// or several fit.
std::string choose_split(const std::filesystem::path& path, const std::set<std::string>& folders,
                         const ImageSetOptions& options);

/// The rows of CIFAR's batch files, in file order; classes sorted.
ImageIndex read_cifar(const std::filesystem::path& path, ImageListing& listing,
                      const ImageSetOptions& options);

}  // namespace espalier
