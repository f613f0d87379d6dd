// Mapped safetensors files and the streaming writer.
#include "espalier/io/safetensors.h"

#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/file_sink_internal.h"
#include "espalier/io/safetensors_internal.h"

namespace espalier {
namespace {

std::int64_t numel_of(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    ESPALIER_ASSERT(size >= 0 && !__builtin_mul_overflow(count, size, &count));
  }
  return count;
}

std::uint64_t bytes_of(const TensorPlan& plan) {
  std::int64_t count = 0;
  ESPALIER_ASSERT(!__builtin_mul_overflow(numel_of(plan.shape), dtype_size(plan.dtype), &count));
  return static_cast<std::uint64_t>(count);
}

std::string header_text(const std::vector<TensorPlan>& plan,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  std::set<std::string_view> names;
  for (const TensorPlan& tensor : plan) {
    if (!names.insert(tensor.name).second || tensor.name == "__metadata__") {
      throw Error(ErrorKind::kInternal, tensor.name, "is planned twice, or is a reserved name");
    }
    const std::uint64_t size = bytes_of(tensor);
    // Unlike operator[], push_back of a pair does not search the keys: linear in the number of
    // tensors.
    header.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(
        tensor.name, nlohmann::ordered_json{{"dtype", safetensors_name(tensor.dtype)},
                                            {"shape", tensor.shape},
                                            {"data_offsets", {offset, offset + size}}});
    offset += size;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::ordered_json::exception&) {
    throw Error(ErrorKind::kInput, "safetensors header",
                "a tensor name or metadata value is not valid UTF-8");
  }
  text.append((8 - text.size() % 8) % 8, ' ');  // the data start at a multiple of 8
  return text;
}

}  // namespace

std::int64_t StoredTensor::numel() const { return numel_of(shape); }

std::uint64_t StoredTensor::file_offset() const {
  ESPALIER_ASSERT(file != nullptr);
  if (data.empty()) return 0;
  return static_cast<std::uint64_t>(data.data() - file->bytes().data());
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile result;
  result.file_ = MappedFile::open(path);
  const std::span<const std::byte> bytes = result.file_->bytes();
  SafetensorsHeader header = parse_safetensors_header(bytes, path.string());
  result.metadata_ = std::move(header.metadata);
  result.tensors_.reserve(header.entries.size());
  for (SafetensorsEntry& entry : header.entries) {
    StoredTensor tensor;
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype;
    tensor.shape = std::move(entry.shape);
    tensor.data = bytes.subspan(header.data_start + entry.begin, entry.end - entry.begin);
    tensor.file = result.file_;
    result.index_.emplace(tensor.name, result.tensors_.size());
    result.tensors_.push_back(std::move(tensor));
  }
  return result;
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

struct SafetensorsWriter::State {
  explicit State(const std::filesystem::path& path) : sink(path) {}
  FileSink sink;
  std::vector<TensorPlan> plan;
  std::size_t next = 0;

  void check_next(std::uint64_t size) {
    if (next >= plan.size())
      throw Error(ErrorKind::kInternal, sink.path().string(), "more tensors than planned");
    const TensorPlan& tensor = plan[next];
    if (bytes_of(tensor) != size) {
      throw Error(ErrorKind::kInternal, tensor.name,
                  format("got {} bytes, the plan needs {}", size, bytes_of(tensor)));
    }
  }
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorPlan> plan,
                                     std::map<std::string, std::string> metadata) {
  const std::string text = header_text(plan, metadata);
  state_ = std::make_unique<State>(path);
  state_->plan = std::move(plan);
  const std::uint64_t length = text.size();
  state_->sink.write(std::as_bytes(std::span(&length, 1)));
  state_->sink.write(text);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  state_->check_next(bytes.size());
  state_->sink.write(bytes);
  ++state_->next;
}

void SafetensorsWriter::append(const StoredTensor& source) {
  state_->check_next(source.data.size());
  if (source.file == nullptr) {
    state_->sink.write(source.data);
  } else {
    state_->sink.copy(*source.file, source.file_offset(), source.data.size());
  }
  ++state_->next;
}

void SafetensorsWriter::append(const ByteProducer& producer) {
  const std::uint64_t before = state_->sink.size();
  ESPALIER_ASSERT(state_->next < state_->plan.size());
  producer([this](std::span<const std::byte> piece) { state_->sink.write(piece); });
  state_->check_next(state_->sink.size() - before);
  ++state_->next;
}

void SafetensorsWriter::finish() {
  if (state_->next != state_->plan.size()) {
    throw Error(ErrorKind::kInternal, state_->sink.path().string(),
                format("{} of {} planned tensors were written", state_->next, state_->plan.size()));
  }
  state_->sink.finish();
}

std::uint64_t SafetensorsWriter::size() const { return state_->sink.size(); }
std::string SafetensorsWriter::digest() const { return state_->sink.digest(); }

void SafetensorsWriter::set_on_bytes(std::function<void(std::uint64_t)> on_bytes) {
  state_->sink.set_on_bytes(std::move(on_bytes));
}

}  // namespace espalier
