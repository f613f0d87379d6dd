// Where the published files of a task lie inside the folder the user names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace espalier {

/// Places are tried in order: for each folder, each name. A name may hold folders and, in its last
/// part, one '*'. "" is the user's folder itself.
struct FileSearch {
  std::vector<std::string> folders;
  std::vector<std::string> names;
};

/// The files of the first place that has any, sorted by name (shards of one split); empty when
/// there is none. A name also matches with .gz or .zst behind it.
std::vector<std::filesystem::path> find_task_files(const std::filesystem::path& folder,
                                                   const FileSearch& search);

/// "valid.jsonl, piqa_valid.jsonl; also below piqa/, PIQA/": for the message about a missing file.
std::string to_string(const FileSearch& search);

}  // namespace espalier
