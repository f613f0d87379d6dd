// Opening a Hugging Face folder: config, tensors over all shards, companions.
#include "espalier/io/hf_folder.h"

#include <algorithm>
#include <set>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr std::uint64_t kMaxConfigBytes = 16u << 20;
constexpr std::uint64_t kMaxIndexBytes = 256u << 20;

/// Weights of other frameworks and older formats, which are not copied along with pruned weights
/// either.
bool is_weight_file(std::string_view name) {
  const auto ends = [&](std::string_view tail) { return name.ends_with(tail); };
  return ends(".safetensors") || ends(".safetensors.index.json") || ends(".bin.index.json") ||
         ends(".gguf") || ends(".h5") || ends(".msgpack") || ends(".pth") || ends(".pt") ||
         ends(".ckpt") ||
         (ends(".bin") && (name.starts_with("pytorch_model") || name.starts_with("model") ||
                           name.starts_with("consolidated")));
}

bool is_companion(const std::string& name) {
  static const std::set<std::string, std::less<>> kOurs{"config.json", "README.md",
                                                        "espalier_pruning.json"};
  return !kOurs.contains(name) && !is_weight_file(name) && !name.starts_with('.') &&
         !name.ends_with(".tmp");
}

std::vector<std::string> list_companions(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    // status() follows links: snapshots of a Hugging Face cache consist of links into blobs/.
    if (!entry->is_regular_file(error)) continue;
    std::string name = entry->path().filename().string();
    if (is_companion(name)) names.push_back(std::move(name));
  }
  if (error) {
    throw Error(ErrorKind::kInput, folder.string(),
                format("cannot be listed: {}", error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  if (!fs::exists(path)) {
    Error error(ErrorKind::kInput, folder.string(),
                "has no config.json: not a Hugging Face model folder");
    if (fs::exists(folder / "adapter_config.json")) {
      error.hint("this is a PEFT adapter; pass its base model, and the adapter with --adapter");
    }
    throw error;
  }
  return read_file(path, kMaxConfigBytes);
}

/// Other formats that a folder without safetensors may hold.
[[noreturn]] void throw_no_weights(const fs::path& folder) {
  std::string pickle, gguf;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("pytorch_model") &&
        (name.ends_with(".bin") || name.ends_with(".bin.index.json")))
      pickle = name;
    if (name.ends_with(".gguf")) gguf = name;
  }
  if (!pickle.empty()) {
    throw Error(
        ErrorKind::kUnsupported, folder.string(),
        format("holds its weights only as {}, a pickle; pickles can run code and are never loaded",
               pickle))
        .hint(
            "convert once: python -c \"from transformers import AutoModelForCausalLM as M; "
            "M.from_pretrained('IN').save_pretrained('OUT')\"");
  }
  if (!gguf.empty()) {
    throw Error(ErrorKind::kInput, folder.string(), "has no safetensors weights, but a GGUF file")
        .hint(format("pass the file itself: {}", (folder / gguf).string()));
  }
  throw Error(ErrorKind::kInput, folder.string(),
              format("has no weights: neither {} nor {}", kSingle, kIndex))
      .hint("download the model again, weights included");
}

/// weight_map of the index, as shard -> names in it.
using WeightMap = std::map<std::string, std::set<std::string>>;

WeightMap parse_index(const fs::path& path, ProblemList& problems) {
  const Json index = parse_json(read_file(path, kMaxIndexBytes), path.string());
  WeightMap shards;
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(ErrorKind::kInput, path.string(), "has no object \"weight_map\"");
  }
  for (const auto& [name, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) {
      problems.add(format("{}: weight_map of \"{}\" is not a string", kIndex, name));
      continue;
    }
    std::string file = shard.get<std::string>();
    if (file.empty() || fs::path(file).has_parent_path() || file == "." || file == "..") {
      problems.add(
          format("{}: weight_map of \"{}\" points to \"{}\", expected a file of this folder",
                 kIndex, name, file));
      continue;
    }
    shards[std::move(file)].insert(name);
  }
  if (shards.empty() && problems.empty()) problems.add(format("{}: weight_map is empty", kIndex));
  return shards;
}

}  // namespace

/// Collects the tensors of every shard and everything that is wrong with them.
struct HfFolder::Loader {
  HfFolder& folder;
  ProblemList problems;
  bool missing_shard = false;

  void add_shard(const std::string& name, const std::set<std::string>* expected) {
    const fs::path path = folder.path_ / name;
    if (!fs::exists(path)) {
      missing_shard = true;
      problems.add(format("{} is missing ({} tensors of the index are in it)", name,
                          expected ? expected->size() : 0));
      return;
    }
    try {
      const SafetensorsFile file = SafetensorsFile::open(path);
      for (const StoredTensor& tensor : file.tensors()) {
        if (expected != nullptr && !expected->contains(tensor.name)) {
          problems.add(format("tensor \"{}\" is in {}, but the index does not place it there",
                              tensor.name, name));
        }
        const auto [at, inserted] = folder.index_.emplace(tensor.name, folder.tensors_.size());
        if (!inserted) {
          problems.add(format("tensor \"{}\" is in both {} and {}", tensor.name,
                              folder.tensors_[at->second].file->path().filename().string(), name));
          continue;
        }
        folder.tensors_.push_back(tensor);
      }
      if (expected == nullptr) return;
      for (const std::string& tensor : *expected) {
        if (file.find(tensor) == nullptr) {
          problems.add(
              format("tensor \"{}\" is not in {}, where the index places it", tensor, name));
        }
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInput) throw;
      problems.add(error.what());
    }
  }
};

HfFolder HfFolder::open(const std::filesystem::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(ErrorKind::kInput, folder.string(),
                fs::exists(folder) ? "is not a folder" : "does not exist");
  }
  HfFolder result;
  result.path_ = folder;
  result.config_text_ = read_config(folder);
  result.companions_ = list_companions(folder);
  Loader loader{result, ProblemList(ErrorKind::kInput, folder.string())};
  if (fs::exists(folder / kIndex)) {
    for (const auto& [shard, names] : parse_index(folder / kIndex, loader.problems))
      loader.add_shard(shard, &names);
  } else if (fs::exists(folder / kSingle)) {
    loader.add_shard(std::string(kSingle), nullptr);
  } else {
    throw_no_weights(folder);
  }
  loader.problems.throw_if_any(loader.missing_shard ? "download the missing shards into the folder"
                                                    : "download or convert the model again");
  return result;
}

const StoredTensor* HfFolder::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::uint64_t HfFolder::weight_bytes() const {
  std::uint64_t total = 0;
  for (const StoredTensor& tensor : tensors_) total += tensor.data.size();
  return total;
}

}  // namespace espalier
