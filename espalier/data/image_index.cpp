// From a listing to rows: split, classes, order, and everything about a layout that is refused.
#include "espalier/data/image_index.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/image_listing_internal.h"

namespace espalier {
namespace {

void check_options(const ImageSetOptions& options) {
  ProblemList problems(ErrorKind::kUsage, "images");
  if (options.channels != 1 && options.channels != 3)
    problems.add(format("channels is {}, expected 1 or 3", options.channels));
  if (options.limit < 0) problems.add(format("limit is {}, expected at least 0", options.limit));
  if (options.resize < 0 || options.resize > options.limits.max_width)
    problems.add(format("resize is {}, expected 0-{}", options.resize, options.limits.max_width));
  if (options.crop < 0 || options.crop > options.resize)
    problems.add(format("crop is {}, expected 0-{} (resize)", options.crop,
                        std::max<std::int64_t>(0, options.resize)));
  problems.throw_if_any();
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// Rows of CLASS/FILE below the chosen folder, classes and files in sorted order.
ImageIndex index_class_folders(const std::filesystem::path& path, ImageListing& listing,
                               const ImageSetOptions& options) {
  std::set<std::string> split_folders;
  for (const auto& [image, bytes] : listing.images) {
    if (image.find('/') == std::string::npos) {
      throw Error(
          ErrorKind::kInput, path.string(),
          format("the image {} lies beside the class folders, so its class is unknown", image))
          .hint("one folder per class, with its images inside");
    }
    split_folders.insert(split_folder_of(image));
  }
  const std::string chosen = choose_split(path, split_folders, options);

  std::map<std::string, std::vector<ImageRow>> classes;
  for (const std::string& folder : listing.folders) {
    const std::size_t slash = folder.rfind('/');
    const std::string parent = slash == std::string::npos ? "" : folder.substr(0, slash);
    if (parent == chosen) classes[last_part(folder)];
  }
  for (auto& [image, bytes] : listing.images) {
    if (split_folder_of(image) != chosen) continue;
    const std::vector<std::string> parts = path_parts(image);
    classes[parts[parts.size() - 2]].push_back({image, 0, std::move(bytes)});
  }

  ImageIndex index;
  index.source = listing.archive ? RowSource::kEncoded : RowSource::kFile;
  index.split = last_part(chosen);
  for (const std::string& folder : split_folders) index.splits.push_back(last_part(folder));
  std::vector<std::string> empty;
  for (auto& [name, rows] : classes) {
    if (rows.empty()) empty.push_back(name);
    for (ImageRow& row : rows) {
      row.label = static_cast<std::int64_t>(index.classes.size());
      index.rows.push_back(std::move(row));
    }
    index.classes.push_back(name);
  }
  if (!empty.empty()) {
    throw Error(ErrorKind::kInput, path.string(),
                format("class folders without an image: {}", join(empty)))
        .hint("remove these folders, or put images (.jpg .jpeg .png .webp) into them");
  }
  return index;
}

/// One row of each class in turn, each class in the order it has.
std::vector<ImageRow> round_robin(std::vector<ImageRow> rows, std::size_t class_count) {
  std::vector<std::vector<std::size_t>> of_class(class_count);
  for (std::size_t i = 0; i < rows.size(); ++i)
    of_class[static_cast<std::size_t>(rows[i].label)].push_back(i);
  std::vector<ImageRow> ordered;
  ordered.reserve(rows.size());
  for (std::size_t turn = 0; ordered.size() < rows.size(); ++turn) {
    for (const std::vector<std::size_t>& members : of_class) {
      if (turn < members.size()) ordered.push_back(std::move(rows[members[turn]]));
    }
  }
  return ordered;
}

void report_ignored(const ImageListing& listing, Reporter& reporter) {
  if (listing.ignored == 0) return;
  reporter.info(format("ignored {} {} that {} no image by name, first: {}", listing.ignored,
                       listing.ignored == 1 ? "file" : "files", listing.ignored == 1 ? "is" : "are",
                       listing.first_ignored));
}

}  // namespace

ImageIndex index_images(const std::filesystem::path& path, const ImageSetOptions& options,
                        Reporter& reporter) {
  check_options(options);
  std::error_code failed;
  const auto type = std::filesystem::status(path, failed).type();
  if (type == std::filesystem::file_type::not_found || type == std::filesystem::file_type::none)
    throw Error(ErrorKind::kInput, path.string(), "no such file or folder");
  ImageListing listing = type == std::filesystem::file_type::directory
                             ? list_image_folder(path)
                             : list_image_archive(path, options, reporter);
  const bool is_cifar =
      std::any_of(listing.cifar.begin(), listing.cifar.end(),
                  [](const auto& file) { return !cifar_split_of(last_part(file.first)).empty(); });
  if (!is_cifar && listing.images.empty()) {
    throw Error(ErrorKind::kInput, path.string(), "holds no image (.jpg .jpeg .png .webp)")
        .hint("give a folder or a tar archive of class folders, or CIFAR's binary batches");
  }
  if (!is_cifar) report_ignored(listing, reporter);
  ImageIndex index =
      is_cifar ? read_cifar(path, listing, options) : index_class_folders(path, listing, options);
  index.path = path;
  if (index.classes.size() == 1) {
    throw Error(ErrorKind::kInput, path.string(),
                format("holds a single class, {}; at least two are needed", index.classes[0]));
  }
  index.rows = round_robin(std::move(index.rows), index.classes.size());
  if (options.limit > 0 && options.limit < index.size())
    index.rows.resize(static_cast<std::size_t>(options.limit));
  return index;
}

}  // namespace espalier
