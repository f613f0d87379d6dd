// The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): records of one label byte
// (CIFAR-100: coarse, then fine) and 3072 bytes of pixels, red, green and blue planes of 32 x 32.
#include <algorithm>
#include <cctype>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/data/image_listing_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kPixels = 3 * 32 * 32;
constexpr std::string_view kNames10 = "batches.meta.txt", kNames100 = "fine_label_names.txt";

std::string folder_of(const std::string& file) {
  const std::size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash + 1);
}

std::string content(const std::filesystem::path& path, const ImageListing& listing,
                    const std::string& file) {
  return listing.archive ? listing.cifar.at(file) : read_file(path / file, std::uint64_t{1} << 30);
}

std::vector<std::string> read_names(const std::filesystem::path& path, const ImageListing& listing,
                                    const std::string& file) {
  if (!listing.cifar.contains(file)) {
    throw Error(ErrorKind::kInput, path.string(),
                format("has CIFAR's batches, but not their class names ({})", file));
  }
  const std::string text = content(path, listing, file);
  std::vector<std::string> names;
  std::string name;
  for (const char c : text + '\n') {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) {
      name += c;
    } else if (!name.empty()) {
      names.push_back(std::move(name));
      name.clear();
    }
  }
  if (names.empty() || names.size() > 256) {
    throw Error(ErrorKind::kInput, path.string(),
                format("{} names {} classes, expected 1-256", file, names.size()));
  }
  return names;
}

/// Appends the rows of one batch file.
void add_records(const std::filesystem::path& path, const std::string& file,
                 const std::string& bytes, std::size_t label_bytes,
                 const std::vector<std::int64_t>& position, ImageIndex& index) {
  const std::size_t record = label_bytes + kPixels;
  if (bytes.empty() || bytes.size() % record != 0) {
    throw Error(ErrorKind::kInput, path.string(),
                format("{} has {} bytes, not a multiple of {} (label and 3 x 32 x 32)", file,
                       bytes.size(), record));
  }
  for (std::size_t i = 0; i < bytes.size() / record; ++i) {
    const char* start = bytes.data() + i * record;
    const auto label = static_cast<unsigned char>(start[label_bytes - 1]);
    if (label >= position.size()) {
      throw Error(ErrorKind::kInput, path.string(),
                  format("record {} of {} has label {}, but there are {} class names", i, file,
                         unsigned{label}, position.size()));
    }
    // Five digits, so that names sort as numbers do (a file has at most 50,000 records).
    index.rows.push_back(
        {format("{}/{:05}", file, i), position[label], std::string(start + label_bytes, kPixels)});
  }
}

}  // namespace

std::string_view cifar_split_of(std::string_view file_name) {
  constexpr std::string_view kStart = "data_batch_", kEnd = ".bin";
  if (file_name == "train.bin") return "train";
  if (file_name == "test.bin" || file_name == "test_batch.bin") return "test";
  const bool is_batch = file_name.size() == kStart.size() + 1 + kEnd.size() &&
                        file_name.starts_with(kStart) && file_name.ends_with(kEnd);
  return is_batch ? "train" : "";
}

bool is_cifar_names(std::string_view file_name) {
  return file_name == kNames10 || file_name == kNames100;
}

ImageIndex read_cifar(const std::filesystem::path& path, ImageListing& listing,
                      const ImageSetOptions& options) {
  std::set<std::string> splits, folders;
  bool has_10 = false, has_100 = false;
  for (const auto& [file, bytes] : listing.cifar) {
    const std::string name = last_part(file);
    const std::string_view split = cifar_split_of(name);
    if (split.empty()) continue;
    splits.emplace(split);
    folders.insert(folder_of(file));
    (name == "train.bin" || name == "test.bin" ? has_100 : has_10) = true;
  }
  if (folders.size() > 1 || (has_10 && has_100)) {
    throw Error(ErrorKind::kInput, path.string(), "holds more than one CIFAR data set")
        .hint("give the folder of one of them");
  }
  const std::string split = choose_split(path, splits, options);
  const std::vector<std::string> names =
      read_names(path, listing, *folders.begin() + std::string(has_100 ? kNames100 : kNames10));

  std::vector<std::size_t> by_name(names.size());
  std::iota(by_name.begin(), by_name.end(), std::size_t{0});
  std::stable_sort(by_name.begin(), by_name.end(),
                   [&](std::size_t a, std::size_t b) { return names[a] < names[b]; });
  ImageIndex index;
  index.source = RowSource::kCifarRecord;
  index.split = split;
  index.splits.assign(splits.begin(), splits.end());
  std::vector<std::int64_t> position(names.size());
  for (std::size_t i = 0; i < by_name.size(); ++i) {
    position[by_name[i]] = static_cast<std::int64_t>(i);
    index.classes.push_back(names[by_name[i]]);
  }
  for (const auto& [file, bytes] : listing.cifar) {
    if (cifar_split_of(last_part(file)) != split) continue;
    add_records(path, file, content(path, listing, file), has_100 ? 2 : 1, position, index);
  }
  return index;
}

}  // namespace espalier
