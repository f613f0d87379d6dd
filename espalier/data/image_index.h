// The images of a folder or an archive before they are decoded: classes, names, order. Everything
// about layout is decided here, so that decoding at once (image_set.h) and decoding batch by batch
// (image_batches.h) see the same rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/image/decode.h"

namespace espalier {

/// An image whose channel count is not the wanted one: refused, or turned from grey to RGB or back.
enum class GreyRule : std::uint8_t { kRefuse, kConvert };
/// An image that does not decode: refused with its name, or left out and counted.
enum class BrokenRule : std::uint8_t { kRefuse, kSkip };

struct ImageSetOptions {
  std::string split = {};  // train, test, ...: the folder above the class folders; empty: only one
  std::string preferred_split = {};  // taken when there are several and `split` names none
  std::int64_t limit = 0;            // the first so many images; 0: all
  std::int64_t channels = 3;         // 1 or 3
  GreyRule grey = GreyRule::kRefuse;
  BrokenRule broken = BrokenRule::kRefuse;
  AlphaRule alpha = AlphaRule::kDrop;
  /// 0: images are taken as they are and must have one size. S: the shorter side becomes S
  /// (bilinear with antialiasing, the longer side rounded down), then the middle `crop` x `crop` is
  /// cut out; torchvision's Resize(S) and CenterCrop(crop).
  std::int64_t resize = 0;
  std::int64_t crop = 0;                               // 0: `resize`
  ImageLimits limits = {};                             // of one file
  std::uint64_t max_memory = std::uint64_t{16} << 30;  // pixels and encoded bytes
};

/// How the bytes of a row are to be read.
enum class RowSource : std::uint8_t {
  kFile,        // an image file under ImageIndex::path
  kEncoded,     // an image file's bytes, from an archive
  kCifarRecord  // 3072 bytes: 32 x 32 red, then green, then blue
};

struct ImageRow {
  std::string file;  // relative path, in the folder or the archive
  std::int64_t label = 0;
  std::string bytes;  // empty for kFile
};

struct ImageIndex {
  std::filesystem::path path;  // folder or archive
  std::string split;
  std::vector<std::string> splits;  // every split there is
  RowSource source = RowSource::kFile;
  std::vector<std::string> classes;  // sorted
  std::vector<ImageRow> rows;

  std::int64_t size() const { return static_cast<std::int64_t>(rows.size()); }
};

/// Finds the images of `path`.
///
/// Layouts: CLASS/FILE or SPLIT/CLASS/FILE in a folder (folders above these are passed over when
/// there is but one) or in an archive (.tar, .tar.gz, .tar.xz, .tar.zst; read once, front to end,
/// the encoded images of the split are kept in memory); CIFAR-10 (data_batch_1.bin ...,
/// test_batch.bin, batches.meta.txt) and CIFAR-100 (train.bin, test.bin, fine_label_names.txt; fine
/// labels) in either. Image files are known by their names (.jpg .jpeg .png .webp, any case) and
/// decoded by their first bytes; hidden files are passed over, others are ignored and reported.
///
/// Order: round-robin over the sorted classes, each class sorted by file name (bytewise), so that
/// every prefix is balanced; `limit` takes the first of it. A CIFAR record is named
/// `data_batch_1.bin/00042`.
///
/// Throws Error(kInput): no such path, no image, a split that is not there or several to choose
/// from (they are listed), images beside the class folders, class folders without an image (named),
/// a single class, a damaged archive or batch file; Error(kUsage) for options out of range;
/// Error(kResource) beyond options.max_memory. Cost: a listing, or one pass over the archive.
ImageIndex index_images(const std::filesystem::path& path, const ImageSetOptions& options,
                        Reporter& reporter);

}  // namespace espalier
