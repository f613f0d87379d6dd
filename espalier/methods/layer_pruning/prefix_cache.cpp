// The cache file: raw rows in hidden.bin, what they are and how many are done in hidden.json.
#include "espalier/methods/layer_pruning/prefix_cache.h"

#include <algorithm>
#include <cerrno>

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
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

constexpr double kRecordSeconds = 5;

fs::path data_path(const fs::path& folder) { return folder / "hidden.bin"; }
fs::path index_path(const fs::path& folder) { return folder / "hidden.json"; }

std::int64_t row_bytes(const HiddenStateFile::Shape& shape) {
  return shape.seq_len * shape.hidden * dtype_size(to_dtype(shape.type));
}

/// Rows on record for this key; -1 when the folder holds nothing for it.
std::int64_t recorded_rows(const fs::path& folder, const std::string& key,
                           const HiddenStateFile::Shape& shape) {
  std::error_code code;
  if (!fs::exists(index_path(folder), code)) return -1;
  const std::uintmax_t size = fs::file_size(data_path(folder), code);
  if (code || size != static_cast<std::uintmax_t>(shape.rows * row_bytes(shape))) return -1;
  try {
    const Json index = read_json_file(index_path(folder), 1 << 20);
    if (index.value("key", "") != key) return -1;
    const auto rows = index.value("rows_done", std::int64_t{-1});
    return rows <= shape.rows ? rows : -1;
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
  return hash.hex();
}

std::string prefix_key(const std::string& frozen, const at::Tensor& ids, const Decoder& model) {
  FastHash hash;
  hash.add(format("{} {} {} {}", frozen, dtype_name(to_dtype(model.type())),
                  at::DeviceTypeName(model.device().type(), true), shape_text(ids.sizes())));
  hash.add(tensor_bytes(ids.contiguous()));
  return hash.hex();
}

std::uint64_t prefix_cache_bytes(std::int64_t rows, std::int64_t seq_len, std::int64_t hidden,
                                 at::ScalarType type) {
  return static_cast<std::uint64_t>(rows) *
         static_cast<std::uint64_t>(row_bytes({rows, seq_len, hidden, type}));
}

struct HiddenStateFile::State {
  fs::path folder;
  std::string key;
  Shape shape;
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
    index["rows"] = shape.rows;
    index["rows_done"] = rows_done;
    index["seq_len"] = shape.seq_len;
    index["hidden"] = shape.hidden;
    index["dtype"] = dtype_name(to_dtype(shape.type));
    write_file_atomically(index_path(folder), dump_json(index));
    since_record = {};
  }
};

bool HiddenStateFile::is_complete(const fs::path& folder, const std::string& key,
                                  const Shape& shape) {
  return recorded_rows(folder, key, shape) == shape.rows;
}

HiddenStateFile::HiddenStateFile(const fs::path& folder, const std::string& key, const Shape& shape)
    : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->key = key;
  state_->shape = shape;
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
    const int error = ::posix_fallocate(state_->descriptor, 0, shape.rows * row_bytes(shape));
    if (error != 0) throw_write_error(path, error);
    state_->record();
  }
}

HiddenStateFile::~HiddenStateFile() = default;
HiddenStateFile::HiddenStateFile(HiddenStateFile&&) noexcept = default;
HiddenStateFile& HiddenStateFile::operator=(HiddenStateFile&&) noexcept = default;

std::int64_t HiddenStateFile::rows_done() const { return state_->rows_done; }

void HiddenStateFile::append(const at::Tensor& rows) {
  const Shape& shape = state_->shape;
  ESPALIER_ASSERT(rows.scalar_type() == shape.type && rows.dim() == 3 &&
                  rows.size(1) == shape.seq_len && rows.size(2) == shape.hidden);
  ESPALIER_ASSERT(state_->rows_done + rows.size(0) <= shape.rows);
  const at::Tensor contiguous = rows.to(at::kCPU).contiguous();
  const auto bytes = tensor_bytes(contiguous);
  transfer(::pwrite, state_->descriptor, bytes.data(), bytes.size(),
           state_->rows_done * row_bytes(shape), data_path(state_->folder), "writing");
  state_->rows_done += rows.size(0);
  if (state_->rows_done == shape.rows || state_->since_record.seconds() > kRecordSeconds)
    state_->record();
}

at::Tensor HiddenStateFile::read(const std::vector<std::int64_t>& rows) const {
  const Shape& shape = state_->shape;
  const at::Tensor out =
      at::empty({static_cast<std::int64_t>(rows.size()), shape.seq_len, shape.hidden}, shape.type);
  auto* data = static_cast<std::byte*>(out.mutable_data_ptr());
  for (const std::int64_t row : rows) {
    ESPALIER_ASSERT(row >= 0 && row < state_->rows_done);
    // Read, not mapped: a batch's rows then count once in memory, and the page cache still keeps
    // what fits.
    transfer(::pread, state_->descriptor, data, static_cast<std::size_t>(row_bytes(shape)),
             row * row_bytes(shape), data_path(state_->folder), "reading");
    data += row_bytes(shape);
  }
  return out;
}

void HiddenStateFile::will_need(const std::vector<std::int64_t>& rows) const {
  for (const std::int64_t row : rows) {
    ::posix_fadvise(state_->descriptor, row * row_bytes(state_->shape), row_bytes(state_->shape),
                    POSIX_FADV_WILLNEED);
  }
}

void fill_prefix_cache(const Decoder& model, std::int64_t first, const at::Tensor& ids,
                       std::int64_t batch_rows, HiddenStateFile& file, Reporter& reporter,
                       const StopToken& stop) {
  const std::int64_t rows = ids.size(0);
  if (file.rows_done() == rows) return;
  const at::NoGradGuard no_grad;
  const AttentionContext context = model.context(ids.size(1));
  const auto phase = reporter.phase("frozen layers, once", rows, "rows");
  while (file.rows_done() < rows) {
    phase->update(file.rows_done());
    if (stop.stop_requested())
      throw Interrupted{
          "the rows cached so far are kept; the same command with --resume continues"};
    const at::Tensor part =
        ids.narrow(0, file.rows_done(), std::min(batch_rows, rows - file.rows_done()));
    file.append(model.run_layers(model.embed(part.to(model.device())), 0, first, context));
  }
  phase->update(rows);
}

}  // namespace espalier::layer_pruning
