// Walks a folder, or an archive once, and sorts what it meets by name.
#include <algorithm>
#include <cctype>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/data/image_listing_internal.h"
#include "espalier/io/archive_reader.h"

namespace espalier {
namespace {

// ROOT/SPLIT/CLASS/FILE, and one folder more, as archives of the net have.
constexpr int kMaxDepth = 4;
// A batch file of CIFAR-100 has 154 MB.
constexpr std::uint64_t kMaxCifarFile = std::uint64_t{1} << 30;

bool is_image_name(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string suffix(name.substr(dot + 1));
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return suffix == "jpg" || suffix == "jpeg" || suffix == "png" || suffix == "webp";
}

bool is_hidden(const std::vector<std::string>& parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [](const std::string& part) { return part.front() == '.'; });
}

enum class Kind : std::uint8_t { kImage, kCifar, kIgnored };

Kind kind_of(const std::string& name) {
  if (is_image_name(name)) return Kind::kImage;
  if (!cifar_split_of(name).empty() || is_cifar_names(name)) return Kind::kCifar;
  return Kind::kIgnored;
}

void add_file(ImageListing& listing, const std::string& path, std::string bytes) {
  switch (kind_of(last_part(path))) {
    case Kind::kImage:
      listing.images.insert_or_assign(path, std::move(bytes));
      break;
    case Kind::kCifar:
      listing.cifar.insert_or_assign(path, std::move(bytes));
      break;
    case Kind::kIgnored:
      if (listing.ignored++ == 0) listing.first_ignored = path;
  }
}

void walk(const std::filesystem::path& folder, const std::string& prefix, int depth,
          ImageListing& listing) {
  std::error_code failed;
  std::filesystem::directory_iterator entries(folder, failed);
  if (failed) {
    throw Error(ErrorKind::kInput, folder.string(),
                format("cannot be listed: {}", failed.message()));
  }
  std::vector<std::filesystem::directory_entry> sorted(begin(entries), end(entries));
  std::sort(sorted.begin(), sorted.end());
  for (const auto& entry : sorted) {
    const std::string name = entry.path().filename().string();
    if (name.front() == '.') continue;
    const std::string path = prefix.empty() ? name : prefix + '/' + name;
    if (entry.is_directory(failed)) {
      listing.folders.insert(path);
      if (depth < kMaxDepth) walk(entry.path(), path, depth + 1, listing);
    } else {
      add_file(listing, path, {});
    }
  }
}

/// The split of an image or a batch file by its place or name.
std::string split_of(const std::string& path) {
  const std::string_view cifar = cifar_split_of(last_part(path));
  return cifar.empty() ? last_part(split_folder_of(path)) : std::string(cifar);
}

/// Decides, entry by entry, whose bytes are kept. The preferred split is taken only if it is there,
/// so until it shows itself every split is kept.
class SplitFilter {
 public:
  std::uint64_t kept = 0;  // bytes in the listing

  explicit SplitFilter(const ImageSetOptions& options)
      : wanted_(options.split), preferred_(options.split.empty() ? options.preferred_split : "") {}

  bool wants(const std::string& path, ImageListing& listing) {
    // Class names are in no split.
    if (is_cifar_names(last_part(path))) return true;
    const std::string split = split_of(path);
    if (!preferred_.empty() && split == preferred_) {
      wanted_ = std::exchange(preferred_, {});
      for (auto& [image, bytes] : listing.images) drop(image, bytes);
      for (auto& [file, bytes] : listing.cifar) drop(file, bytes);
    }
    return wanted_.empty() || split == wanted_;
  }

 private:
  void drop(const std::string& path, std::string& bytes) {
    if (split_of(path) == wanted_ || is_cifar_names(last_part(path))) return;
    kept -= bytes.size();
    std::string().swap(bytes);
  }

  std::string wanted_, preferred_;
};

}  // namespace

std::vector<std::string> path_parts(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    parts.emplace_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return parts;
}

std::string split_folder_of(std::string_view image) {
  for (int level = 0; level < 2; ++level) {
    const std::size_t slash = image.rfind('/');
    if (slash == std::string_view::npos) return {};
    image = image.substr(0, slash);
  }
  return std::string(image);
}

std::string last_part(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

ImageListing list_image_folder(const std::filesystem::path& path) {
  ImageListing listing;
  walk(path, {}, 1, listing);
  return listing;
}

ImageListing list_image_archive(const std::filesystem::path& path, const ImageSetOptions& options,
                                Reporter& reporter) {
  ImageListing listing;
  listing.archive = true;
  ArchiveReader reader(path);
  const auto file_size = static_cast<std::int64_t>(std::filesystem::file_size(path));
  const auto phase = reporter.phase("reading " + path.filename().string(), file_size, "bytes");
  SplitFilter filter(options);
  ArchiveEntry entry;
  while (reader.next(entry)) {
    phase->update(reader.bytes_used());
    const std::vector<std::string> parts = path_parts(entry.path);
    if (parts.empty() || is_hidden(parts)) continue;
    if (entry.kind == ArchiveEntryKind::kFolder) listing.folders.insert(entry.path);
    if (entry.kind != ArchiveEntryKind::kFile) continue;
    std::string bytes;
    const Kind kind = kind_of(parts.back());
    if (kind != Kind::kIgnored && filter.wants(entry.path, listing)) {
      bytes = reader.read(kind == Kind::kImage ? options.limits.max_bytes : kMaxCifarFile);
      filter.kept += bytes.size();
    }
    if (filter.kept > options.max_memory) {
      throw Error(ErrorKind::kResource, path.string(),
                  format("holds more than {} of images, the limit",
                         to_string(Bytes{static_cast<std::int64_t>(options.max_memory)})))
          .hint("unpack it: images of a folder are not kept in memory before they are decoded");
    }
    add_file(listing, entry.path, std::move(bytes));
  }
  return listing;
}

std::string choose_split(const std::filesystem::path& path, const std::set<std::string>& folders,
                         const ImageSetOptions& options) {
  std::string split = options.split;
  const auto is_preferred = [&](const std::string& folder) {
    return last_part(folder) == options.preferred_split;
  };
  if (split.empty() && folders.size() > 1 && std::ranges::any_of(folders, is_preferred))
    split = options.preferred_split;
  std::string names, example;
  std::vector<std::string> fitting;
  for (const std::string& folder : folders) {
    const std::string name = last_part(folder);
    names += format("{}{}", names.empty() ? "" : ", ", folder.empty() ? "." : folder.c_str());
    if (example.empty() || name == "train") example = name;
    if (split.empty() || name == split) fitting.push_back(folder);
  }
  if (fitting.size() == 1) return fitting.front();
  if (!fitting.empty()) {
    throw Error(ErrorKind::kInput, path.string(), format("holds several splits: {}", names))
        .hint("choose one, for example --split " + example);
  }
  if (folders.size() == 1 && folders.begin()->empty()) {
    throw Error(ErrorKind::kInput, path.string(),
                format("has no split `{}`: its class folders lie at the top", split))
        .hint("leave out --split");
  }
  throw Error(ErrorKind::kInput, path.string(),
              format("has no split `{}`; it has: {}", split, names))
      .hint("for example --split " + example);
}

}  // namespace espalier
