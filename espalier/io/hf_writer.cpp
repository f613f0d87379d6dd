// Writing weights of a Hugging Face folder: one file, or shards with their index.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/hf_folder.h"

namespace espalier {
namespace {

std::uint64_t size_of(const TensorSource& source) {
  if (source.stored.file != nullptr) return source.stored.data.size();
  if (!source.produce) return source.memory.size();
  std::int64_t numel = 1;
  for (const std::int64_t size : source.plan.shape) numel *= size;
  return static_cast<std::uint64_t>(numel * dtype_size(source.plan.dtype));
}

/// Consecutive tensors per shard; a tensor larger than the limit gets a shard of its own.
std::vector<std::vector<const TensorSource*>> split_shards(const std::vector<TensorSource>& tensors,
                                                           std::uint64_t max_shard_bytes) {
  std::vector<std::vector<const TensorSource*>> shards;
  std::uint64_t used = 0;
  for (const TensorSource& tensor : tensors) {
    const std::uint64_t size = size_of(tensor);
    if (shards.empty() || (!shards.back().empty() && used + size > max_shard_bytes)) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(&tensor);
    used += size;
  }
  if (shards.empty()) shards.emplace_back();
  return shards;
}

WrittenFile write_shard(const std::filesystem::path& folder, const std::string& name,
                        const std::vector<const TensorSource*>& tensors, std::uint64_t done_before,
                        const std::function<void(std::uint64_t)>& on_bytes) {
  std::vector<TensorPlan> plan;
  plan.reserve(tensors.size());
  for (const TensorSource* tensor : tensors) plan.push_back(tensor->plan);
  SafetensorsWriter writer(folder / name, std::move(plan));
  if (on_bytes) writer.set_on_bytes([&](std::uint64_t done) { on_bytes(done_before + done); });
  for (const TensorSource* tensor : tensors) {
    if (tensor->stored.file != nullptr) {
      writer.append(tensor->stored);
    } else if (tensor->produce) {
      writer.append(tensor->produce);
    } else {
      writer.append(tensor->memory);
    }
  }
  writer.finish();
  return {name, writer.size(), writer.digest()};
}

}  // namespace

std::uint64_t total_bytes(const std::vector<TensorSource>& tensors) {
  std::uint64_t bytes = 0;
  for (const TensorSource& tensor : tensors) bytes += size_of(tensor);
  return bytes;
}

std::vector<WrittenFile> write_hf_weight_files(const std::filesystem::path& folder,
                                               const std::vector<TensorSource>& tensors,
                                               std::uint64_t max_shard_bytes,
                                               const std::function<void(std::uint64_t)>& on_bytes) {
  ESPALIER_ASSERT(max_shard_bytes > 0);
  const auto shards = split_shards(tensors, max_shard_bytes);
  std::vector<WrittenFile> files;
  if (shards.size() == 1) {
    files.push_back(write_shard(folder, "model.safetensors", shards.front(), 0, on_bytes));
    return files;
  }
  Json index = Json::object();
  std::uint64_t total = 0, done = 0;
  std::map<std::string, std::string> weight_map;  // sorted, as the writers of this format leave it
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    files.push_back(write_shard(folder, name, shards[i], done, on_bytes));
    done += files.back().bytes;
    for (const TensorSource* tensor : shards[i]) {
      total += size_of(*tensor);
      if (!weight_map.emplace(tensor->plan.name, name).second) {
        throw Error(ErrorKind::kInternal, tensor->plan.name, "is planned twice");
      }
    }
  }
  index["metadata"] = {{"total_size", total}};
  index["weight_map"] = weight_map;
  const std::string name = "model.safetensors.index.json";
  const std::string text = dump_json(index);
  write_file_atomically(folder / name, text);
  FastHash hash;
  hash.add(text);
  files.push_back({name, text.size(), hash.hex()});
  return files;
}

std::vector<std::string> write_hf_weights(const std::filesystem::path& folder,
                                          const std::vector<TensorSource>& tensors,
                                          std::uint64_t max_shard_bytes,
                                          const std::function<void(std::uint64_t)>& on_bytes) {
  std::vector<std::string> names;
  for (WrittenFile& file : write_hf_weight_files(folder, tensors, max_shard_bytes, on_bytes)) {
    names.push_back(std::move(file.name));
  }
  return names;
}

}  // namespace espalier
