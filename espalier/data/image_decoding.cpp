// Rows of an index decoded into planes, one or all of them, and what is said about those that
// cannot be used. The callers decide where pixels go: one tensor (image_set.cpp) or a batch
// (image_batches.cpp).
#include <algorithm>
#include <utility>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/image_rows_internal.h"

namespace espalier {
namespace {

// Between two updates of the progress; large enough to keep all threads busy.
constexpr std::int64_t kRowsPerPiece = 2048;

/// [height, width, channels] to [channels, height, width].
void copy_planes(const Image& image, std::uint8_t* planes) {
  const auto channels = static_cast<std::size_t>(image.channels);
  const std::size_t count = image.pixels.size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t i = 0; i < count; ++i) planes[c * count + i] = image.pixels[i * channels + c];
  }
}

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

std::uint64_t bytes_in_memory(const ImageIndex& index, const ImageSetOptions& options,
                              const ReferenceRow& size) {
  std::uint64_t encoded = 0;
  for (const ImageRow& row : index.rows) encoded += row.bytes.size();
  return encoded + static_cast<std::uint64_t>(index.size() * options.channels * size.height) *
                       static_cast<std::uint64_t>(size.width);
}

RowResult decode_into(const ImageIndex& index, std::int64_t row, const ImageSetOptions& options,
                      const ReferenceRow& size, std::uint8_t* planes) {
  DecodedRow decoded = decode_row(index, row, options);
  const std::int64_t width = decoded.image.width, height = decoded.image.height;
  if (planes != nullptr && decoded.fault == RowFault::kNone && width == size.width &&
      height == size.height)
    copy_planes(decoded.image, planes);
  return {decoded.fault, std::move(decoded.problem), width, height};
}

std::vector<RowResult> decode_all(const ImageIndex& index, const ImageSetOptions& options,
                                  const ReferenceRow& size, std::uint8_t* planes,
                                  std::string_view name, Reporter& reporter) {
  std::vector<RowResult> results(index.rows.size());
  const std::int64_t stride = options.channels * size.height * size.width;
  const auto phase = reporter.phase(name, index.size(), "images");
  for (std::int64_t begin = 0; begin < index.size(); begin += kRowsPerPiece) {
    const std::int64_t end = std::min(begin + kRowsPerPiece, index.size());
    at::parallel_for(begin, end, 16, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        results[static_cast<std::size_t>(row)] = decode_into(
            index, row, options, size, planes == nullptr ? nullptr : planes + row * stride);
      }
    });
    phase->update(end);
  }
  return results;
}

void check_results(const ImageIndex& index, const ImageSetOptions& options,
                   const ReferenceRow& size, const std::vector<std::int64_t>& rows,
                   const std::vector<RowResult>& results) {
  std::vector<std::string> broken;
  for (const RowResult& result : results) {
    if (result.fault == RowFault::kBroken) broken.push_back(result.problem);
  }
  if (options.broken == BrokenRule::kRefuse) refuse_broken(index, broken);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const RowResult& result = results[i];
    if (result.fault == RowFault::kChannels) throw_channels(index, result.problem);
    if (result.fault == RowFault::kBroken ||
        (result.width == size.width && result.height == size.height))
      continue;
    throw Error(
        ErrorKind::kInput, index.path.string(),
        format("mixed image sizes: {} is {} x {}, {} is {} x {} (width x height)",
               index.rows[static_cast<std::size_t>(size.row)].file, size.width, size.height,
               index.rows[static_cast<std::size_t>(rows[i])].file, result.width, result.height))
        .hint(format("--resize {} brings them to one size", std::min(size.width, size.height)));
  }
}

std::vector<std::string> drop_broken(ImageIndex& index, const std::vector<RowResult>& results,
                                     Reporter& reporter) {
  check_classes(index, results);
  std::vector<std::string> broken;
  std::vector<ImageRow> kept;
  const std::int64_t before = index.size();
  for (std::size_t row = 0; row < results.size(); ++row) {
    if (results[row].fault != RowFault::kNone) {
      broken.push_back(index.rows[row].file);
    } else {
      kept.push_back(std::move(index.rows[row]));
    }
  }
  index.rows = std::move(kept);
  if (!broken.empty()) {
    reporter.warn(format("{}: {} of {} images do not decode and are left out, first: {}",
                         index.path.string(), broken.size(), before, broken[0]));
  }
  return broken;
}

}  // namespace espalier
