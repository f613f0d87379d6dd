// Decodes all rows of an index into one tensor.
#include "espalier/data/image_set.h"

#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/data/image_rows_internal.h"

namespace espalier {
namespace {

void check_memory(const ImageIndex& index, const ImageSetOptions& options,
                  const ReferenceRow& size) {
  const std::uint64_t needed = bytes_in_memory(index, options, size);
  if (needed <= options.max_memory) return;
  throw Error(ErrorKind::kResource, index.path.string(),
              format("{} images of {} x {} x {} need {}, more than the limit of {}",
                     format_count(index.size()), options.channels, size.height, size.width,
                     to_string(Bytes{static_cast<std::int64_t>(needed)}),
                     to_string(Bytes{static_cast<std::int64_t>(options.max_memory)})))
      .hint("take fewer images with --limit");
}

}  // namespace

ImageSet decode_image_set(ImageIndex index, const ImageSetOptions& options, Reporter& reporter) {
  const ReferenceRow size = find_reference(index, options);
  check_memory(index, options, size);
  at::Tensor pixels =
      at::empty({index.size(), options.channels, size.height, size.width}, at::kByte);
  const std::vector<RowResult> results = decode_all(
      index, options, size, pixels.mutable_data_ptr<std::uint8_t>(), "decoding images", reporter);
  std::vector<std::int64_t> rows(results.size());
  std::iota(rows.begin(), rows.end(), std::int64_t{0});
  check_results(index, options, size, rows, results);

  ImageSet set;
  set.broken = drop_broken(index, results, reporter);
  std::int64_t kept = 0;
  for (std::size_t row = 0; row < results.size(); ++row) {
    if (results[row].fault != RowFault::kNone) continue;
    if (const auto from = static_cast<std::int64_t>(row); kept != from)
      pixels[kept].copy_(pixels[from]);
    ++kept;
  }
  std::vector<std::int64_t> labels;
  for (ImageRow& row : index.rows) {
    labels.push_back(row.label);
    set.files.push_back(std::move(row.file));
  }
  set.pixels = pixels.slice(0, 0, kept);
  set.labels = at::tensor(labels, at::kLong);
  set.classes = std::move(index.classes);
  set.split = std::move(index.split);
  set.splits = std::move(index.splits);
  return set;
}

ImageSet load_image_set(const std::filesystem::path& path, const ImageSetOptions& options,
                        Reporter& reporter) {
  return decode_image_set(index_images(path, options, reporter), options, reporter);
}

}  // namespace espalier
