// From a MODEL argument to a path: a folder, a .gguf file, or a name in the local Hugging Face
// cache.
#include <algorithm>
#include <cstdlib>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/io/hf_folder.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

std::optional<fs::path> environment_path(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return fs::path(value);
}

/// Cache folders in the order in which the hub's own client looks at these variables; the first
/// that is set counts.
std::optional<fs::path> hub_cache() {
  if (auto path = environment_path("HF_HUB_CACHE")) return path;
  if (auto path = environment_path("HUGGINGFACE_HUB_CACHE")) return path;
  if (auto path = environment_path("HF_HOME")) return *path / "hub";
  if (auto path = environment_path("XDG_CACHE_HOME")) return *path / "huggingface" / "hub";
  if (auto path = environment_path("HOME")) return *path / ".cache" / "huggingface" / "hub";
  return std::nullopt;
}

/// "org/name" or "name": one or two parts of letters, digits, '-', '_', '.'.
bool is_hub_name(std::string_view text) {
  std::size_t parts = 1;
  bool part_empty = true;
  for (const char c : text) {
    if (c == '/') {
      if (part_empty) return false;
      ++parts;
      part_empty = true;
      continue;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && c != '-' && c != '_' && (c != '.' || part_empty)) return false;
    part_empty = false;
  }
  return parts <= 2 && !part_empty;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.pop_back();
  return text;
}

/// The revision that refs/main names, else the newest snapshot; only those with a config.json
/// count.
std::optional<fs::path> find_snapshot(const fs::path& repository) {
  const fs::path snapshots = repository / "snapshots";
  const auto usable = [](const fs::path& path) { return fs::exists(path / "config.json"); };
  std::error_code error;
  if (fs::is_regular_file(repository / "refs" / "main", error)) {
    const std::string revision = trimmed(read_file(repository / "refs" / "main", 4096));
    if (!revision.empty() && revision.find('/') == std::string::npos &&
        usable(snapshots / revision)) {
      return snapshots / revision;
    }
  }
  std::optional<fs::path> newest;
  fs::file_time_type newest_time;
  for (fs::directory_iterator entry(snapshots, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!usable(entry->path())) continue;
    const auto time = fs::last_write_time(entry->path(), error);
    if (!newest || time > newest_time || (time == newest_time && entry->path() > *newest)) {
      newest = entry->path();
      newest_time = time;
    }
  }
  return newest;
}

std::vector<std::string> gguf_files(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".gguf") names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

ModelLocation locate_path(const fs::path& path) {
  if (fs::is_directory(path)) {
    if (fs::exists(path / "config.json") || fs::exists(path / "adapter_config.json")) {
      return {ModelLocation::Kind::kHfFolder, path};
    }
    const auto ggufs = gguf_files(path);
    Error error(ErrorKind::kInput, path.string(),
                "is a folder without config.json: not a model folder");
    if (!ggufs.empty())
      error.hint(format("pass the file itself: {}", (path / ggufs.front()).string()));
    throw error;
  }
  if (path.extension() == ".gguf") return {ModelLocation::Kind::kGguf, path};
  Error error(ErrorKind::kInput, path.string(),
              "is a file, but not a .gguf; expected a model folder or a .gguf file");
  if (path.extension() == ".safetensors" || path.filename() == "config.json") {
    error.hint(format("pass the folder that holds it: {}",
                      path.has_parent_path() ? path.parent_path().string() : std::string(".")));
  }
  throw error;
}

}  // namespace

ModelLocation locate_model(std::string_view model) {
  if (model.empty()) {
    throw Error(ErrorKind::kUsage, "MODEL",
                "is empty; expected a folder, a .gguf file, or org/name");
  }
  const fs::path path(model);
  std::error_code status_error;
  if (fs::exists(path, status_error)) return locate_path(path);
  std::string looked = format("not a path: {}", path.string());
  if (is_hub_name(model)) {
    const auto cache = hub_cache();
    if (!cache) {
      looked += "; no Hugging Face cache: none of HF_HUB_CACHE, HF_HOME and HOME is set";
    } else {
      std::string folder = "models--";
      for (const char c : model) folder += c == '/' ? std::string("--") : std::string(1, c);
      const fs::path repository = *cache / folder;
      if (fs::is_directory(repository, status_error)) {
        if (auto snapshot = find_snapshot(repository))
          return {ModelLocation::Kind::kHfFolder, *snapshot};
        looked += format("; {} has no snapshot with a config.json", repository.string());
      } else {
        looked += format("; not in the Hugging Face cache: {}", repository.string());
      }
    }
  }
  throw Error(ErrorKind::kInput, model, "no such model (" + looked + ")")
      .hint("check the path, or download the model first; espalier never uses the network");
}

std::uint64_t stored_weight_bytes(const std::filesystem::path& folder_or_gguf) {
  if (std::filesystem::is_directory(folder_or_gguf))
    return HfFolder::open(folder_or_gguf).weight_bytes();
  return std::filesystem::file_size(folder_or_gguf);
}

}  // namespace espalier
