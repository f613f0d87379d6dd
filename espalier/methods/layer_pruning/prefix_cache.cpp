// The cache file: raw rows in hidden.bin, what they are and how many are done in hidden.json.
#include "espalier/methods/layer_pruning/prefix_cache.h"

#include <algorithm>
#include <cerrno>
#include <numeric>

#include <fcntl.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

constexpr double kRecordSeconds = 5;

fs::path data_path(const fs::path& folder) { return folder / "hidden.bin"; }
fs::path index_path(const fs::path& folder) { return folder / "hidden.json"; }

std::int64_t token_bytes(const HiddenStateFile::Shape& shape) {
  return shape.hidden * dtype_size(to_dtype(shape.type));
}

std::int64_t total_tokens(const HiddenStateFile::Shape& shape) {
  return std::accumulate(shape.lengths.begin(), shape.lengths.end(), std::int64_t{0});
}

/// Rows on record for this key; -1 when the folder holds nothing for it.
std::int64_t recorded_rows(const fs::path& folder, const std::string& key,
                           const HiddenStateFile::Shape& shape) {
  std::error_code code;
  if (!fs::exists(index_path(folder), code)) return -1;
  const std::uintmax_t size = fs::file_size(data_path(folder), code);
  if (code || size != static_cast<std::uintmax_t>(total_tokens(shape) * token_bytes(shape)))
    return -1;
  try {
    const Json index = read_json_file(index_path(folder), 1 << 20);
    if (index.value("key", "") != key) return -1;
    const auto rows = index.value("rows_done", std::int64_t{-1});
    return rows <= static_cast<std::int64_t>(shape.lengths.size()) ? rows : -1;
  } catch (const std::exception&) {
    return -1;  // a broken record costs a recomputation, never the run
  }
}

/// Whole transfers of `count` bytes; `io` is ::pread or ::pwrite.
template <class Io, class Pointer>
void transfer(Io io, int descriptor, Pointer data, std::size_t count, std::int64_t offset,
              const fs::path& path, const char* verb) {
  while (count > 0) {
    const ssize_t n = io(descriptor, data, count, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_write_error(path, errno);
    if (n == 0)
      throw Error(ErrorKind::kResource, path.string(),
                  format("ended while {} at offset {}", verb, offset));
    data += n;
    count -= static_cast<std::size_t>(n);
    offset += n;
  }
}

}  // namespace

std::string frozen_digest(Decoder& model, std::int64_t first) {
  FastHash hash;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    hash.add(format("{} {}", name, shape_text(bytes.sizes())));
    hash.add(tensor_bytes(bytes));
  };
  if (first > 0) add("embedding", model.embedding());
  for (std::int64_t layer = 0; layer < first; ++layer) {
    for_each_tensor(model.block(layer), format("layer.{}", layer), add);
  }
  for_each_linear(model, [&](const std::string& name, const Linear& linear) {
    if (linear.nf4 && layer_of_tensor(name) < first) add(name, linear.nf4->packed);
  });
  return hash.hex();
}

std::string prefix_key(const std::string& frozen, const TrainingRows& rows, const Decoder& model) {
  FastHash hash;
  hash.add(format("{} {} {} {}", frozen, dtype_name(to_dtype(model.type())),
                  at::DeviceTypeName(model.device().type(), true), rows.digest()));
  return hash.hex();
}

std::uint64_t prefix_cache_bytes(std::int64_t tokens, std::int64_t hidden, at::ScalarType type) {
  return static_cast<std::uint64_t>(tokens * hidden * dtype_size(to_dtype(type)));
}

struct HiddenStateFile::State {
  fs::path folder;
  std::string key;
  Shape shape;
  std::vector<std::int64_t> starts;  // first byte of each row, and the end
  int descriptor = -1;
  std::int64_t rows_done = 0;
  Stopwatch since_record;

  ~State() {
    if (descriptor >= 0) ::close(descriptor);
  }

  void record() {
    // Data before the record that vouches for it.
    if (::fdatasync(descriptor) != 0) throw_write_error(data_path(folder), errno);
    Json index;
    index["key"] = key;
    index["rows"] = shape.lengths.size();
    index["rows_done"] = rows_done;
    index["tokens"] = total_tokens(shape);
    index["hidden"] = shape.hidden;
    index["dtype"] = dtype_name(to_dtype(shape.type));
    write_file_atomically(index_path(folder), dump_json(index));
    since_record = {};
  }
};

bool HiddenStateFile::is_complete(const fs::path& folder, const std::string& key,
                                  const Shape& shape) {
  return recorded_rows(folder, key, shape) == static_cast<std::int64_t>(shape.lengths.size());
}

HiddenStateFile::HiddenStateFile(const fs::path& folder, const std::string& key, const Shape& shape)
    : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->key = key;
  state_->shape = shape;
  state_->starts.push_back(0);
  for (const std::int64_t length : shape.lengths)
    state_->starts.push_back(state_->starts.back() + length * token_bytes(shape));
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) throw_write_error(folder, code.value());
  const std::int64_t recorded = recorded_rows(folder, key, shape);
  const fs::path path = data_path(folder);
  if (recorded < 0) {
    fs::remove(index_path(folder), code);
    fs::remove(path, code);
  }
  state_->descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (state_->descriptor < 0) throw_write_error(path, errno);
  state_->rows_done = std::max<std::int64_t>(recorded, 0);
  if (recorded < 0) {
    const int error = ::posix_fallocate(state_->descriptor, 0, state_->starts.back());
    if (error != 0) throw_write_error(path, error);
    state_->record();
  }
}

HiddenStateFile::~HiddenStateFile() = default;
HiddenStateFile::HiddenStateFile(HiddenStateFile&&) noexcept = default;
HiddenStateFile& HiddenStateFile::operator=(HiddenStateFile&&) noexcept = default;

std::int64_t HiddenStateFile::rows_done() const { return state_->rows_done; }

void HiddenStateFile::append(const at::Tensor& states, std::int64_t rows) {
  const Shape& shape = state_->shape;
  const auto first = static_cast<std::size_t>(state_->rows_done),
             last = first + static_cast<std::size_t>(rows);
  ESPALIER_ASSERT(rows > 0 && last < state_->starts.size());
  ESPALIER_ASSERT(states.scalar_type() == shape.type && states.dim() == 2 &&
                  states.size(1) == shape.hidden);
  const at::Tensor contiguous = states.to(at::kCPU).contiguous();
  const auto bytes = tensor_bytes(contiguous);
  ESPALIER_ASSERT(static_cast<std::int64_t>(bytes.size()) ==
                  state_->starts[last] - state_->starts[first]);
  transfer(::pwrite, state_->descriptor, bytes.data(), bytes.size(), state_->starts[first],
           data_path(state_->folder), "writing");
  state_->rows_done += rows;
  if (last + 1 == state_->starts.size() || state_->since_record.seconds() > kRecordSeconds)
    state_->record();
}

at::Tensor HiddenStateFile::read(const std::vector<std::int64_t>& rows) const {
  const Shape& shape = state_->shape;
  std::int64_t tokens = 0;
  for (const std::int64_t row : rows) {
    ESPALIER_ASSERT(row >= 0 && row < state_->rows_done);
    tokens += shape.lengths[static_cast<std::size_t>(row)];
  }
  const at::Tensor out = at::empty({tokens, shape.hidden}, shape.type);
  auto* data = static_cast<std::byte*>(out.mutable_data_ptr());
  for (const std::int64_t row : rows) {
    const auto at = static_cast<std::size_t>(row);
    const std::int64_t bytes = state_->starts[at + 1] - state_->starts[at];
    // Read, not mapped: a batch's rows then count once in memory, and the page cache still keeps
    // what fits.
    transfer(::pread, state_->descriptor, data, static_cast<std::size_t>(bytes), state_->starts[at],
             data_path(state_->folder), "reading");
    data += bytes;
  }
  return out;
}

void HiddenStateFile::will_need(const std::vector<std::int64_t>& rows) const {
  for (const std::int64_t row : rows) {
    const auto at = static_cast<std::size_t>(row);
    ::posix_fadvise(state_->descriptor, state_->starts[at],
                    state_->starts[at + 1] - state_->starts[at], POSIX_FADV_WILLNEED);
  }
}

void fill_prefix_cache(const PrefixFunction& prefix, std::int64_t rows, std::int64_t batch_rows,
                       HiddenStateFile& file, Reporter& reporter, const StopToken& stop) {
  if (file.rows_done() == rows) return;
  const at::NoGradGuard no_grad;
  const auto phase = reporter.phase("frozen layers, once", rows, "rows");
  while (file.rows_done() < rows) {
    phase->update(file.rows_done());
    if (stop.stop_requested())
      throw Interrupted{
          "the rows cached so far are kept; the same command with --resume continues"};
    const std::int64_t begin = file.rows_done(), end = std::min(rows, begin + batch_rows);
    file.append(prefix(begin, end), end - begin);
  }
  phase->update(rows);
}

}  // namespace espalier::layer_pruning
