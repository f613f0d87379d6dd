// Looks at the file system only; contents are the readers' business.
#include "espalier/eval/tasks/task_files.h"

#include <algorithm>
#include <string_view>

namespace espalier {
namespace {

bool matches(std::string_view name, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name == pattern;
  const std::string_view head = pattern.substr(0, star), tail = pattern.substr(star + 1);
  return name.size() >= head.size() + tail.size() && name.starts_with(head) && name.ends_with(tail);
}

bool matches_packed(std::string_view name, std::string_view pattern) {
  for (const std::string_view ending : {".gz", ".zst"}) {
    if (name.ends_with(ending) && matches(name.substr(0, name.size() - ending.size()), pattern))
      return true;
  }
  return matches(name, pattern);
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& place) {
  std::vector<std::filesystem::path> found;
  const std::string pattern = place.filename().string();
  std::error_code absent;
  for (const auto& entry : std::filesystem::directory_iterator(place.parent_path(), absent)) {
    if (entry.is_regular_file(absent) && matches_packed(entry.path().filename().string(), pattern))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  // The same file packed and unpacked is one file; a name without '*' means one file.
  if (pattern.find('*') == std::string::npos && found.size() > 1) found.resize(1);
  return found;
}

}  // namespace

std::vector<std::filesystem::path> find_task_files(const std::filesystem::path& folder,
                                                   const FileSearch& search) {
  for (const std::string& below : search.folders) {
    for (const std::string& name : search.names) {
      std::vector<std::filesystem::path> found = files_of(folder / below / name);
      if (!found.empty()) return found;
    }
  }
  return {};
}

std::string to_string(const FileSearch& search) {
  std::string text;
  for (const std::string& name : search.names) text += (text.empty() ? "" : ", ") + name;
  std::string folders;
  for (const std::string& folder : search.folders) {
    if (!folder.empty()) folders += (folders.empty() ? "" : ", ") + folder + "/";
  }
  return folders.empty() ? text : text + "; here and below " + folders;
}

}  // namespace espalier
