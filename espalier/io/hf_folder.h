// A Hugging Face model folder as one object: config, tensors over all shards, and the files that
// travel with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/io/safetensors.h"

namespace espalier {

class HfFolder {
 public:
  /// Opens config.json and model.safetensors or the shards of model.safetensors.index.json. Missing
  /// shards, weight_map entries that point nowhere, tensors in the wrong shard and duplicate
  /// tensors are all listed in one Error(kInput). Weights that exist only as pickles are
  /// Error(kUnsupported) with the command that converts them.
  static HfFolder open(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  /// The text of config.json as it stands; parse with base/json_internal.h.
  const std::string& config_text() const { return config_text_; }
  /// Tensors of all shards, in shard order then offset order.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;
  /// Regular files of the folder that are neither config.json, weights nor the index: tokenizer
  /// files, generation config, chat template, licence. Names relative to the folder, sorted; run/
  /// and README.md (our own) are left out.
  const std::vector<std::string>& companion_files() const { return companions_; }
  std::uint64_t weight_bytes() const;

 private:
  struct Loader;
  std::filesystem::path path_;
  std::string config_text_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::vector<std::string> companions_;
};

/// One tensor to write and where its bytes come from when their turn comes.
struct TensorSource {
  TensorPlan plan;
  StoredTensor stored;                // used when stored.file is set: bytes are copied file to file
  ByteProducer produce;               // else, when set, called for the bytes
  std::span<const std::byte> memory;  // else these bytes; must live until the write returns
};

/// Of all of them together.
std::uint64_t total_bytes(const std::vector<TensorSource>& tensors);

/// Writes weights as model.safetensors, or as shards `model-0000k-of-0000n.safetensors` of at most
/// `max_shard_bytes` plus model.safetensors.index.json. Returns the names of the files written.
/// `on_bytes(done)` is called as data goes out, for progress and for noticing a stop request (it
/// may throw).
std::vector<std::string> write_hf_weights(const std::filesystem::path& folder,
                                          const std::vector<TensorSource>& tensors,
                                          std::uint64_t max_shard_bytes = 5'000'000'000ull,
                                          const std::function<void(std::uint64_t)>& on_bytes = {});

/// A file that was written, with its XXH3-128 digest (FastHash::hex), which comes for free while
/// writing.
struct WrittenFile {
  std::string name;  // relative to the folder
  std::uint64_t bytes = 0;
  std::string digest;
};

/// As write_hf_weights, with size and digest of every file written.
std::vector<WrittenFile> write_hf_weight_files(
    const std::filesystem::path& folder, const std::vector<TensorSource>& tensors,
    std::uint64_t max_shard_bytes = 5'000'000'000ull,
    const std::function<void(std::uint64_t)>& on_bytes = {});

/// Where a MODEL argument leads: a folder, a .gguf file, or `org/name` in the local Hugging Face
/// cache
/// ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub; the snapshot of refs/main, else the
/// newest that has config.json). Network is never used.
struct ModelLocation {
  enum class Kind : std::uint8_t { kHfFolder, kGguf };
  Kind kind = Kind::kHfFolder;
  std::filesystem::path path;
};
/// Throws Error(kInput) that says which places were looked at.
ModelLocation locate_model(std::string_view model);

/// Bytes of a model's weights: of a folder's safetensors, or of a .gguf file as a whole.
std::uint64_t stored_weight_bytes(const std::filesystem::path& folder_or_gguf);

}  // namespace espalier
