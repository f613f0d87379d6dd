// The options of every verb that writes: where to, and what to do when something is there already.
// A verb holds one of these and calls `output.visit(option)` inside its own visit.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "espalier/options/options.h"
#include "espalier/run/run_folder.h"

namespace espalier::cli {

struct OutputOptions {
  std::string out = {};
  bool overwrite = false;
  bool resume = false;
  /// Not an option: false for verbs whose --out may be left out, as `OutputOptions
  /// output{.out_required = false}`.
  bool out_required = true;

  template <class V>
  void visit(V&& option) {
    option.group("Output");
    option("out", out,
           "where the result goes: a folder, or a file when the result is a GGUF; built in "
           "PATH.partial, "
           "checked, then renamed",
           placeholder("PATH") | (out_required ? required() : OptionTraits{}));
    option("overwrite", overwrite,
           "replace an existing --out (the old one stays until the new one is complete)");
    option("resume", resume,
           "go on from an interrupted run's PATH.partial; starts afresh when there is none");
  }

  /// How RunFolder and OutputFile should treat an existing --out.
  OutputPolicy policy() const { return output_policy(overwrite, resume); }
};

/// With --resume --overwrite, results of a published run are used by a larger one: copies the
/// folders `parts` of `published` into `folder` where it has none of its own.
inline void take_over(const std::filesystem::path& published, const std::filesystem::path& folder,
                      const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (std::filesystem::is_directory(published / part) && !std::filesystem::exists(folder / part))
      std::filesystem::copy(published / part, folder / part,
                            std::filesystem::copy_options::recursive);
  }
}

}  // namespace espalier::cli
