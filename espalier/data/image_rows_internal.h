// One row of an image index as pixels: what decoding at once and decoding batch by batch share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/data/image_index.h"
#include "espalier/image/image.h"

namespace espalier {

enum class RowFault : std::uint8_t {
  kNone,
  kBroken,   // does not decode; BrokenRule decides
  kChannels  // decodes, but has not the wanted channels
};

struct DecodedRow {
  Image image;  // options.channels channels; resized and cropped when that was asked for
  RowFault fault = RowFault::kNone;
  std::string problem;  // "FILE: what is wrong"
};

/// Reads and decodes a row. What is wrong with the file is in the result, so that it can be called
/// on many threads; nothing but lack of memory is thrown.
DecodedRow decode_row(const ImageIndex& index, std::int64_t row, const ImageSetOptions& options);

/// What became of a row; problems are text so that threads only fill in their own rows.
struct RowResult {
  RowFault fault = RowFault::kNone;
  std::string problem;
  std::int64_t width = 0, height = 0;
};

/// The size of all images: that of the first row that can be used.
struct ReferenceRow {
  std::int64_t row = 0, width = 0, height = 0;
};

/// Decodes from the front until a row can be used. Throws as load_image_set does.
ReferenceRow find_reference(const ImageIndex& index, const ImageSetOptions& options);

/// Bytes of all pixels and of what the index holds encoded.
std::uint64_t bytes_in_memory(const ImageIndex& index, const ImageSetOptions& options,
                              const ReferenceRow& size);

/// Decodes `row` into `planes` [c, h, w], if it has the reference's size; `planes` may be null.
RowResult decode_into(const ImageIndex& index, std::int64_t row, const ImageSetOptions& options,
                      const ReferenceRow& size, std::uint8_t* planes);

/// Every row of the index on ATen's threads, with progress under `name`. `planes` [n, c, h, w] or
/// null.
std::vector<RowResult> decode_all(const ImageIndex& index, const ImageSetOptions& options,
                                  const ReferenceRow& size, std::uint8_t* planes,
                                  std::string_view name, Reporter& reporter);

/// Throws for what cannot be used; results[i] is that of rows[i]. All broken images are named, else
/// the first in order that has the wrong channels or size.
void check_results(const ImageIndex& index, const ImageSetOptions& options,
                   const ReferenceRow& size, const std::vector<std::int64_t>& rows,
                   const std::vector<RowResult>& results);

/// Takes broken rows out of the index, says so and returns their names. Error(kInput) when a class
/// had rows and has none left: it could not be learnt or measured.
std::vector<std::string> drop_broken(ImageIndex& index, const std::vector<RowResult>& results,
                                     Reporter& reporter);

}  // namespace espalier
