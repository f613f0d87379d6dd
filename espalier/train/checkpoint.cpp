// Checkpoints on disk.
#include "espalier/train/checkpoint.h"

#include <cerrno>
#include <charconv>

#include <fcntl.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kSuffix = ".safetensors";
constexpr const char* kTemporary = ".tmp";
constexpr const char* kStateKey = "espalier_training_state";

/// Step of "step-00000012.safetensors"; nullopt for other names (temporary files among them).
std::optional<std::int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix) ||
      name.size() <= kPrefix.size() + kSuffix.size())
    return {};
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size() - kSuffix.size();
  std::int64_t step = 0;
  const auto [stop, code] = std::from_chars(begin, end, step);
  if (code != std::errc{} || stop != end || step < 0) return {};
  return step;
}

std::vector<std::pair<std::int64_t, fs::path>> list_checkpoints(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    if (const auto step = step_of(entry.path())) found.emplace_back(*step, entry.path());
  }
  return found;
}

void sync_path(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw_write_error(path, errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (result != 0) throw_write_error(path, error);
}

}  // namespace

void save_checkpoint(const fs::path& folder, std::int64_t step,
                     const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                     const std::string& state_json) {
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) throw_write_error(folder, code.value());
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors)
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});

  const fs::path path = folder / format("{}{:08}{}", kPrefix, step, kSuffix);
  const fs::path temporary = fs::path(path).concat(kTemporary);
  {
    SafetensorsWriter writer(temporary, std::move(plan),
                             {{"format", "pt"}, {kStateKey, state_json}});
    for (const auto& [name, tensor] : tensors)
      writer.append(tensor_bytes(tensor.detach().to(at::kCPU).contiguous()));
    writer.finish();
  }
  sync_path(temporary);
  fs::rename(temporary, path, code);
  if (code) throw_write_error(path, code.value());
  sync_path(folder);
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    // Older checkpoints, and what a killed run left half written.
    const auto other = step_of(entry.path());
    std::error_code ignored;
    if ((other && *other != step) || entry.path().extension() == kTemporary)
      fs::remove(entry.path(), ignored);
  }
}

std::optional<LoadedCheckpoint> load_newest_checkpoint(const fs::path& folder) {
  const std::pair<std::int64_t, fs::path>* newest = nullptr;
  const auto found = list_checkpoints(folder);
  for (const auto& entry : found) {
    if (!newest || entry.first > newest->first) newest = &entry;
  }
  if (!newest) return {};
  LoadedCheckpoint loaded{newest->first, {}, SafetensorsFile::open(newest->second)};
  const auto state = loaded.file.metadata().find(kStateKey);
  if (state == loaded.file.metadata().end()) {
    throw Error(ErrorKind::kInput, newest->second.string(),
                format("has no '{}' in its metadata: not a training checkpoint", kStateKey));
  }
  loaded.state_json = state->second;
  return loaded;
}

void restore_tensor(const LoadedCheckpoint& checkpoint, const std::string& name,
                    at::Tensor destination) {
  const StoredTensor* stored = checkpoint.file.find(name);
  const std::string subject = format("checkpoint of step {}", checkpoint.step);
  if (!stored) throw Error(ErrorKind::kInput, subject, format("holds no tensor '{}'", name));
  if (at::IntArrayRef(stored->shape) != destination.sizes() ||
      to_scalar_type(stored->dtype) != destination.scalar_type()) {
    throw Error(ErrorKind::kInput, subject,
                format("'{}' is {} {}, expected {} {}", name, dtype_name(stored->dtype),
                       shape_text(stored->shape), dtype_name(to_dtype(destination.scalar_type())),
                       shape_text(destination.sizes())));
  }
  const at::NoGradGuard no_grad;
  destination.copy_(view_bytes(stored->data, stored->dtype, stored->shape, stored->file));
}

}  // namespace espalier
