// Where an output may go.
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/run/output_path_internal.h"
#include "espalier/run/publish_internal.h"

namespace fs = std::filesystem;

namespace espalier {
namespace run_internal {

fs::path checked_out(const fs::path& typed) {
  fs::path out = typed.lexically_normal();
  if (!out.has_filename()) out = out.parent_path();  // "a/b/" -> "a/b"
  const std::string name = out.filename().string();
  if (typed.empty()) throw Error(ErrorKind::kUsage, "--out", "is empty").hint("pass --out DIR");
  if (name.empty() || name == "." || name == "..") {
    throw Error(ErrorKind::kUsage, typed.string(),
                "cannot be an output: it must be a name inside some folder")
        .hint("pass --out DIR with a folder that does not exist yet");
  }
  if (out.extension() == ".partial") {
    const std::string final_name = out.stem().string();
    throw Error(ErrorKind::kUsage, typed.string(),
                "ends in .partial, the name of an output that is being written")
        .hint(format("pass --out {}, with --resume to go on with an interrupted run",
                     (out.parent_path() / final_name).string()));
  }
  std::error_code error;
  if (fs::is_symlink(fs::symlink_status(out, error))) {
    const fs::path target = fs::canonical(out, error);
    if (error) {
      throw Error(ErrorKind::kUsage, typed.string(), "is a symbolic link to nothing")
          .hint("remove the link");
    }
    return target;
  }
  return out;
}

std::vector<fs::path> make_parents(const fs::path& out) {
  std::vector<fs::path> missing;
  std::error_code error;
  fs::path parent = parent_folder(out);
  for (; !parent.empty() && !fs::exists(parent, error); parent = parent.parent_path())
    missing.push_back(parent);
  if (!parent.empty() && !fs::is_directory(parent, error)) {
    throw Error(ErrorKind::kUsage, out.string(),
                format("{} is a file, expected a folder", parent.string()))
        .hint("choose another --out");
  }
  std::vector<fs::path> made;
  for (auto it = missing.rbegin(); it != missing.rend(); ++it) {
    if (fs::create_directory(*it, error)) made.push_back(*it);
    if (error) {
      remove_empty_parents(made);
      throw_write_error(*it, error.value());
    }
  }
  if (::faccessat(AT_FDCWD, parent_folder(out).c_str(), W_OK | X_OK, AT_EACCESS) != 0)
    throw_write_error(out, errno);
  return made;
}

void remove_empty_parents(const std::vector<fs::path>& made) noexcept {
  for (auto it = made.rbegin(); it != made.rend(); ++it) ::rmdir(it->c_str());
}

bool may_overwrite(OutputPolicy policy) {
  return policy == OutputPolicy::kOverwrite || policy == OutputPolicy::kResumeOverwrite;
}

bool may_resume(OutputPolicy policy) {
  return policy == OutputPolicy::kResume || policy == OutputPolicy::kResumeOverwrite;
}

void throw_exists(const fs::path& out, OutputPolicy policy) {
  if (policy == OutputPolicy::kResume) {
    throw Error(ErrorKind::kUsage, out.string(), "already exists, so there is nothing to resume")
        .hint("add --overwrite to replace it, or choose another --out");
  }
  throw Error(ErrorKind::kUsage, out.string(), "already exists")
      .hint("add --overwrite to replace it, or choose another --out");
}

}  // namespace run_internal

OutputPolicy output_policy(bool overwrite, bool resume) {
  if (resume) return overwrite ? OutputPolicy::kResumeOverwrite : OutputPolicy::kResume;
  return overwrite ? OutputPolicy::kOverwrite : OutputPolicy::kFresh;
}

void check_output_apart(const fs::path& out, const std::vector<fs::path>& inputs) {
  const auto resolved = [](const fs::path& path) {
    std::error_code error;
    fs::path full = fs::weakly_canonical(fs::absolute(path), error);
    if (error) full = fs::absolute(path).lexically_normal();
    return full.has_filename() ? full : full.parent_path();
  };
  const auto inside = [](const fs::path& path, const fs::path& folder) {
    const fs::path rest = path.lexically_relative(folder);
    return !rest.empty() && *rest.begin() != "..";  // "." when equal
  };
  const fs::path target = resolved(out);
  for (const fs::path& input : inputs) {
    const fs::path source = resolved(input);
    if (target == source) {
      throw Error(ErrorKind::kUsage, out.string(), "is the input itself")
          .hint("choose another --out");
    }
    std::error_code ignored;
    if (fs::is_directory(source, ignored) && inside(target, source)) {
      throw Error(ErrorKind::kUsage, out.string(),
                  format("lies inside the input folder {}", input.string()))
          .hint("choose an --out outside of it");
    }
    if (inside(source, target)) {
      throw Error(ErrorKind::kUsage, out.string(),
                  format("holds the input {}, which would be replaced", input.string()))
          .hint("choose another --out");
    }
  }
}

}  // namespace espalier
