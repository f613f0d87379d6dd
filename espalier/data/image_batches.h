// Batches of images in an order that is a pure function of (seed, step): from a set in memory, or
// decoded ahead of the caller by threads where the set does not fit. Both give the same bits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/data/image_set.h"
#include "espalier/data/row_order.h"

namespace espalier {

/// A new permutation each epoch (RowOrder's), or the rows as they are.
enum class ImageOrder : std::uint8_t { kShuffled, kAsStored };
/// What becomes of the rows at the end of an epoch that do not fill a batch.
enum class LastBatch : std::uint8_t { kKeep, kDrop };

struct ImageBatchOptions {
  std::int64_t batch_size = 128;
  std::uint64_t seed = 0;
  ImageOrder order = ImageOrder::kShuffled;
  LastBatch last = LastBatch::kKeep;
  std::int64_t threads = 0;  // that decode, where images are not in memory; 0: as many as ATen has
};

struct ImageBatch {
  std::vector<std::int64_t> rows;  // in the set: what augment_draws takes
  at::Tensor pixels;               // [b, c, h, w] uint8
  at::Tensor labels;               // [b] int64
};

/// The batches of all epochs, numbered by step from 0. No state has to be saved to go on from a
/// step: batch(step) is the same whatever was asked for before.
class ImageBatches {
 public:
  /// Of images in memory; the tensors may lie on any device and are shared, not copied.
  /// Error(kInput) for no image, a batch size below 1, or fewer images than a batch with
  /// LastBatch::kDrop.
  ImageBatches(const ImageSet& set, const ImageBatchOptions& options);

  /// Decodes the images of `index` batch by batch, two batches per thread ahead of the step that
  /// was asked for last; asking for steps in turn is what is fast. With BrokenRule::kSkip all
  /// images are decoded once now, to know the order without the broken ones; with kRefuse an image
  /// that cannot be used is an Error(kInput) of the batch that holds it, with the text of
  /// load_image_set. Memory: the encoded bytes of the index, and the batches that are ahead.
  ImageBatches(ImageIndex index, const ImageSetOptions& set, const ImageBatchOptions& options,
               Reporter& reporter);
  ~ImageBatches();
  ImageBatches(ImageBatches&&) noexcept;

  std::int64_t size() const;  // rows
  std::int64_t steps_per_epoch() const;
  std::int64_t epoch_of(std::int64_t step) const { return step / steps_per_epoch(); }
  const std::vector<std::string>& classes() const;
  const std::vector<std::string>& broken() const;  // files left out
  bool in_memory() const;

  ImageBatch batch(std::int64_t step);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The images of `path` in memory when their pixels fit set.max_memory, else decoded batch by
/// batch. Throws what load_image_set and ImageBatches throw.
ImageBatches open_image_batches(const std::filesystem::path& path, const ImageSetOptions& set,
                                const ImageBatchOptions& options, Reporter& reporter);

}  // namespace espalier
