// Decodes all rows of an index into one tensor, in parallel, and says what cannot be used.
#include "espalier/data/image_set.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/data/image_rows_internal.h"

namespace espalier {
namespace {

// Between two updates of the progress; large enough to keep all threads busy.
constexpr std::int64_t kRowsPerPiece = 2048;

/// What became of a row; problems are text so that threads only fill in their own rows.
struct RowResult {
  RowFault fault = RowFault::kNone;
  std::string problem;
  std::int64_t width = 0, height = 0;
};

/// The size of all images: that of the first one that can be used.
struct ReferenceRow {
  std::int64_t row = 0, width = 0, height = 0;
};

/// Throws one Error that names them, or nothing when there are none.
void refuse_broken(const ImageIndex& index, const std::vector<std::string>& problems) {
  ProblemList list(ErrorKind::kInput, index.path.string());
  for (const std::string& problem : problems) list.add(problem);
  list.throw_if_any("--skip-broken leaves out and counts images that do not decode");
}

[[noreturn]] void throw_channels(const ImageIndex& index, const std::string& problem) {
  throw Error(ErrorKind::kInput, index.path.string(), "wrong channel count: " + problem)
      .hint("--grey convert turns grey into RGB, or RGB into grey");
}

ReferenceRow find_reference(const ImageIndex& index, const ImageSetOptions& options) {
  std::vector<std::string> problems;
  for (std::int64_t row = 0; row < index.size(); ++row) {
    const DecodedRow decoded = decode_row(index, row, options);
    if (decoded.fault == RowFault::kChannels) throw_channels(index, decoded.problem);
    if (decoded.fault == RowFault::kNone) return {row, decoded.image.width, decoded.image.height};
    problems.push_back(decoded.problem);
  }
  refuse_broken(index, problems);
  throw Error(ErrorKind::kInput, index.path.string(), "holds no image");
}

void check_memory(const ImageIndex& index, const ImageSetOptions& options,
                  const ReferenceRow& size) {
  std::uint64_t encoded = 0;
  for (const ImageRow& row : index.rows) encoded += row.bytes.size();
  const std::uint64_t pixels =
      static_cast<std::uint64_t>(index.size() * options.channels * size.height) *
      static_cast<std::uint64_t>(size.width);
  if (pixels + encoded <= options.max_memory) return;
  throw Error(ErrorKind::kResource, index.path.string(),
              format("{} images of {} x {} x {} need {}, more than the limit of {}",
                     format_count(index.size()), options.channels, size.height, size.width,
                     to_string(Bytes{static_cast<std::int64_t>(pixels + encoded)}),
                     to_string(Bytes{static_cast<std::int64_t>(options.max_memory)})))
      .hint("take fewer images with --limit");
}

std::vector<RowResult> decode_all(const ImageIndex& index, const ImageSetOptions& options,
                                  const ReferenceRow& size, const at::Tensor& pixels,
                                  Reporter& reporter) {
  std::vector<RowResult> results(index.rows.size());
  auto* data = pixels.mutable_data_ptr<std::uint8_t>();
  const std::int64_t stride = options.channels * size.height * size.width;
  const auto phase = reporter.phase("decoding images", index.size(), "images");
  for (std::int64_t begin = 0; begin < index.size(); begin += kRowsPerPiece) {
    const std::int64_t end = std::min(begin + kRowsPerPiece, index.size());
    at::parallel_for(begin, end, 16, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        DecodedRow decoded = decode_row(index, row, options);
        RowResult& result = results[static_cast<std::size_t>(row)];
        result = {decoded.fault, std::move(decoded.problem), decoded.image.width,
                  decoded.image.height};
        if (result.fault == RowFault::kNone && result.width == size.width &&
            result.height == size.height)
          copy_planes(decoded.image, data + row * stride);
      }
    });
    phase->update(end);
  }
  return results;
}

/// Throws for what cannot be skipped; the first row in order is the one that is named.
void check_results(const ImageIndex& index, const ImageSetOptions& options,
                   const ReferenceRow& size, const std::vector<RowResult>& results) {
  std::vector<std::string> broken;
  for (const RowResult& result : results) {
    if (result.fault == RowFault::kBroken) broken.push_back(result.problem);
  }
  if (options.broken == BrokenRule::kRefuse) refuse_broken(index, broken);
  for (std::size_t row = 0; row < results.size(); ++row) {
    const RowResult& result = results[row];
    if (result.fault == RowFault::kChannels) throw_channels(index, result.problem);
    if (result.fault == RowFault::kBroken ||
        (result.width == size.width && result.height == size.height))
      continue;
    throw Error(ErrorKind::kInput, index.path.string(),
                format("mixed image sizes: {} is {} x {}, {} is {} x {} (width x height)",
                       index.rows[static_cast<std::size_t>(size.row)].file, size.width, size.height,
                       index.rows[row].file, result.width, result.height))
        .hint(format("--resize {} brings them to one size", std::min(size.width, size.height)));
  }
}

/// A class that had rows and has none left cannot be learnt or measured.
void check_classes(const ImageIndex& index, const std::vector<RowResult>& results) {
  std::vector<std::int64_t> had(index.classes.size()), has(index.classes.size());
  for (std::size_t row = 0; row < results.size(); ++row) {
    const auto label = static_cast<std::size_t>(index.rows[row].label);
    ++had[label];
    if (results[row].fault == RowFault::kNone) ++has[label];
  }
  for (std::size_t label = 0; label < had.size(); ++label) {
    if (had[label] == 0 || has[label] > 0) continue;
    throw Error(ErrorKind::kInput, index.path.string(),
                format("no image of class {} can be decoded ({} broken)", index.classes[label],
                       had[label]));
  }
}

}  // namespace

ImageSet decode_image_set(const ImageIndex& index, const ImageSetOptions& options,
                          Reporter& reporter) {
  const ReferenceRow size = find_reference(index, options);
  check_memory(index, options, size);
  at::Tensor pixels =
      at::empty({index.size(), options.channels, size.height, size.width}, at::kByte);
  const std::vector<RowResult> results = decode_all(index, options, size, pixels, reporter);
  check_results(index, options, size, results);
  check_classes(index, results);

  ImageSet set;
  set.classes = index.classes;
  set.split = index.split;
  std::vector<std::int64_t> labels;
  std::int64_t kept = 0;
  for (std::int64_t row = 0; row < index.size(); ++row) {
    const ImageRow& entry = index.rows[static_cast<std::size_t>(row)];
    if (results[static_cast<std::size_t>(row)].fault != RowFault::kNone) {
      set.broken.push_back(entry.file);
      continue;
    }
    if (kept != row) pixels[kept].copy_(pixels[row]);
    ++kept;
    labels.push_back(entry.label);
    set.files.push_back(entry.file);
  }
  set.pixels = pixels.slice(0, 0, kept);
  set.labels = at::tensor(labels, at::kLong);
  if (!set.broken.empty()) {
    reporter.warn(format("{}: {} of {} images do not decode and are left out, first: {}",
                         index.path.string(), set.broken.size(), index.size(), set.broken[0]));
  }
  return set;
}

ImageSet load_image_set(const std::filesystem::path& path, const ImageSetOptions& options,
                        Reporter& reporter) {
  return decode_image_set(index_images(path, options, reporter), options, reporter);
}

}  // namespace espalier
