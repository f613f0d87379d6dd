// The order over either of two sources: a tensor that is indexed, or rows that threads decode
// ahead.
#include "espalier/data/image_batches.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/ParallelGuard.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/thread_pool.h"
#include "espalier/data/image_rows_internal.h"

namespace espalier {
namespace {

/// Rows of a step: RowOrder's, with the two choices that it does not have.
class BatchOrder {
 public:
  BatchOrder(std::int64_t rows, const ImageBatchOptions& options)
      : options_(options),
        order_(check(rows, options), options.batch_size, options.seed),
        rows_(rows),
        steps_(options.last == LastBatch::kDrop ? rows / options.batch_size
                                                : order_.steps_per_epoch()) {}

  std::int64_t steps_per_epoch() const { return steps_; }

  std::vector<std::int64_t> rows(std::int64_t step) {
    ESPALIER_ASSERT(step >= 0);
    const std::int64_t within = step % steps_;
    if (options_.order == ImageOrder::kShuffled)
      return order_.batch(step / steps_ * order_.steps_per_epoch() + within);
    const std::int64_t begin = within * options_.batch_size;
    std::vector<std::int64_t> rows(
        static_cast<std::size_t>(std::min(options_.batch_size, rows_ - begin)));
    std::iota(rows.begin(), rows.end(), begin);
    return rows;
  }

 private:
  static std::int64_t check(std::int64_t rows, const ImageBatchOptions& options) {
    if (options.last == LastBatch::kDrop && options.batch_size > rows) {
      throw Error(ErrorKind::kInput, "images",
                  format("there are {}, fewer than one batch of {}", rows, options.batch_size))
          .hint("a smaller batch, or keep the last one");
    }
    return rows;
  }

  ImageBatchOptions options_;
  RowOrder order_;
  std::int64_t rows_, steps_;
};

/// What the threads decode from; nothing in it changes.
struct DecodedSource {
  ImageIndex index;
  ImageSetOptions options;
  ReferenceRow size;
};

ImageBatch decode_batch(const DecodedSource& source, std::vector<std::int64_t> rows) {
  // Each thread decodes a batch of its own, so ATen's inside it would only get in the way.
  const c10::ParallelGuard one_thread(true);
  const auto count = static_cast<std::int64_t>(rows.size());
  const std::int64_t channels = source.options.channels, height = source.size.height,
                     width = source.size.width;
  at::Tensor pixels = at::empty({count, channels, height, width}, at::kByte);
  auto* planes = pixels.mutable_data_ptr<std::uint8_t>();
  std::vector<RowResult> results;
  std::vector<std::int64_t> labels;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    results.push_back(
        decode_into(source.index, rows[i], source.options, source.size,
                    planes + static_cast<std::int64_t>(i) * channels * height * width));
    labels.push_back(source.index.rows[static_cast<std::size_t>(rows[i])].label);
  }
  check_results(source.index, source.options, source.size, rows, results);
  return {std::move(rows), pixels, at::tensor(labels, at::kLong)};
}

/// Batches on their way, by step.
class Prefetch {
 public:
  Prefetch(std::unique_ptr<const DecodedSource> source, std::int64_t threads)
      : source_(std::move(source)), ahead_(2 * threads), pool_(threads) {}
  /// What has not begun is not waited for.
  ~Prefetch() { ended_ = true; }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  ImageBatch take(std::int64_t step, BatchOrder& order) {
    // A jump leaves batches behind that nobody will ask for.
    std::erase_if(coming_, [&](const auto& batch) {
      return batch.first < step || batch.first > step + ahead_;
    });
    for (std::int64_t next = step; next <= step + ahead_; ++next) {
      if (coming_.contains(next)) continue;
      const auto task =
          std::make_shared<std::packaged_task<ImageBatch()>>([this, rows = order.rows(next)] {
            return ended_ ? ImageBatch{} : decode_batch(*source_, rows);
          });
      coming_.emplace(next, task->get_future());
      pool_.give([task] { (*task)(); });  // what is thrown goes into the future
    }
    const auto found = coming_.find(step);
    std::future<ImageBatch> batch = std::move(found->second);
    coming_.erase(found);
    return batch.get();
  }

 private:
  std::unique_ptr<const DecodedSource> source_;
  std::int64_t ahead_;
  std::map<std::int64_t, std::future<ImageBatch>> coming_;
  std::atomic<bool> ended_ = false;
  ThreadPool pool_;  // last: its threads end before what they use
};

}  // namespace

struct ImageBatches::State {
  BatchOrder order;
  std::int64_t size = 0;
  std::vector<std::string> classes, broken;
  at::Tensor pixels, labels;          // in memory
  std::unique_ptr<Prefetch> decoded;  // or not
};

ImageBatches::ImageBatches(const ImageSet& set, const ImageBatchOptions& options)
    : state_(std::make_unique<State>(State{BatchOrder(set.size(), options), set.size(), set.classes,
                                           set.broken, set.pixels, set.labels, nullptr})) {}

ImageBatches::ImageBatches(ImageIndex index, const ImageSetOptions& set,
                           const ImageBatchOptions& options, Reporter& reporter) {
  ReferenceRow size = find_reference(index, set);
  std::vector<std::string> broken;
  if (set.broken == BrokenRule::kSkip) {
    const std::vector<RowResult> results =
        decode_all(index, set, size, nullptr, "looking for broken images", reporter);
    std::vector<std::int64_t> rows(results.size());
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    check_results(index, set, size, rows, results);
    broken = drop_broken(index, results, reporter);
    size.row = 0;  // all before it were broken
  }
  BatchOrder order(index.size(), options);
  const std::int64_t count = index.size();
  std::vector<std::string> classes = index.classes;
  auto source = std::make_unique<const DecodedSource>(DecodedSource{std::move(index), set, size});
  auto decoded = std::make_unique<Prefetch>(
      std::move(source), options.threads > 0 ? options.threads : at::get_num_threads());
  state_ = std::make_unique<State>(State{
      std::move(order), count, std::move(classes), std::move(broken), {}, {}, std::move(decoded)});
}

ImageBatches::~ImageBatches() = default;
ImageBatches::ImageBatches(ImageBatches&&) noexcept = default;

std::int64_t ImageBatches::size() const { return state_->size; }
std::int64_t ImageBatches::steps_per_epoch() const { return state_->order.steps_per_epoch(); }
const std::vector<std::string>& ImageBatches::classes() const { return state_->classes; }
const std::vector<std::string>& ImageBatches::broken() const { return state_->broken; }
bool ImageBatches::in_memory() const { return state_->decoded == nullptr; }

ImageBatch ImageBatches::batch(std::int64_t step) {
  if (state_->decoded) return state_->decoded->take(step, state_->order);
  std::vector<std::int64_t> rows = state_->order.rows(step);
  const at::Tensor index = at::tensor(rows, at::kLong).to(state_->pixels.device());
  return {std::move(rows), state_->pixels.index_select(0, index),
          state_->labels.index_select(0, index)};
}

ImageBatches open_image_batches(const std::filesystem::path& path, const ImageSetOptions& set,
                                const ImageBatchOptions& options, Reporter& reporter) {
  ImageIndex index = index_images(path, set, reporter);
  if (bytes_in_memory(index, set, find_reference(index, set)) <= set.max_memory)
    return ImageBatches(decode_image_set(std::move(index), set, reporter), options);
  return ImageBatches(std::move(index), set, options, reporter);
}

}  // namespace espalier
