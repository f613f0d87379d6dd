// The folder a run writes: built in `OUT.partial/`, checked by the caller, renamed to `OUT` by
// publish(). A killed run leaves the old OUT or a resumable OUT.partial, never a half folder under
// the final name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "espalier/base/reporter.h"

namespace espalier {

enum class OutputPolicy : std::uint8_t {
  kFresh,      // refuse when OUT exists
  kOverwrite,  // replace OUT at publish time (the old one stays until then)
  kResume,  // continue OUT.partial when there is one, else start afresh; OUT itself must not exist
  kResumeOverwrite,  // --resume --overwrite: as kResume, and an existing OUT is replaced at publish
                     // time
};

/// The policy that the two flags ask for.
OutputPolicy output_policy(bool overwrite, bool resume);

/// Throws Error(kUsage) when writing `out` would touch an input: out is the input, lies inside an
/// input folder, or holds an input (which --overwrite would delete). Symbolic links are followed.
/// Call it before any costly work.
void check_output_apart(const std::filesystem::path& out,
                        const std::vector<std::filesystem::path>& inputs);

/// Facts for run/manifest.json; every field may be empty.
struct RunFacts {
  std::string verb = {};
  std::string command_line = {};
  std::string resolved_recipe = {};  // also written to run/recipe.resolved.yaml
  std::uint64_t seed = 0;
  std::string device = {};
  std::int64_t threads = 0;
  std::string libtorch_version = {};  // "" = the version this build was compiled against
};

class RunFolder {
 public:
  /// Creates (or, resuming, reopens) OUT.partial and takes its lock; missing parent folders are
  /// made. Throws Error(kUsage) when OUT exists without --overwrite, or exists and was not written
  /// by espalier (nothing of other people is ever removed; an empty folder counts as absent),
  /// Error(kResource) when another live process holds the lock (its pid is named) or the place
  /// cannot be written. A stale OUT.partial of a dead run is removed unless resuming; a publish
  /// that was killed half-way is finished or undone first.
  static RunFolder create(const std::filesystem::path& out, OutputPolicy policy, RunFacts facts);

  /// Not published and not keep()-ed: the partial folder is removed on destruction (a refused input
  /// leaves nothing).
  ~RunFolder();
  RunFolder(RunFolder&&) noexcept;
  RunFolder& operator=(RunFolder&&) noexcept;

  const std::filesystem::path& out() const;
  /// Where to write: OUT.partial.
  const std::filesystem::path& folder() const;
  /// OUT.partial/run, made on creation.
  std::filesystem::path run_dir() const;
  /// True when kResume found an earlier partial run.
  bool resumed() const;

  /// Leaves OUT.partial in place when this object goes (a checkpoint worth resuming is inside).
  /// Also writes run/manifest.json as it stands, so that `espalier report OUT.partial` works.
  void keep();

  /// Appends one row to run/metrics.jsonl, run/metrics.csv and the TensorBoard event file. Values
  /// keep the order given. On resume, rows with step >= the resumed step are dropped first via
  /// truncate_metrics.
  void metrics(std::int64_t step, const std::vector<std::pair<std::string, double>>& values);
  void truncate_metrics(std::int64_t first_dropped_step);

  /// Manifest inputs and outputs: path, bytes, digest ("sha256:..." or "xxh3:..."; "" = not
  /// hashed). An input must exist and lie apart from OUT (check_output_apart). Outputs are found by
  /// publish(); only digests are given here, by path relative to folder().
  void add_input(const std::filesystem::path& path, std::string digest);
  void add_output_digest(const std::string& relative_path, std::string digest);
  /// Extra manifest fields as JSON text, e.g. ("predicted_peak_bytes", "123").
  void add_fact(std::string key, std::string json_value);
  /// Every line logged through this tees into run/log.txt and on to `next`, which must outlive this
  /// object.
  Reporter& log_to_file(Reporter& next);

  /// Writes run/manifest.json (version, libtorch version, command, recipe, seed, sizes of outputs,
  /// times, peak RSS, exit 0), syncs metadata, and renames into place, replacing an old OUT when
  /// overwriting.
  void publish();

 private:
  struct State;
  explicit RunFolder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The same promise for a single output file (a GGUF): write to `OUT.partial`, rename. Overwrite
/// rules as above.
class OutputFile {
 public:
  static OutputFile create(const std::filesystem::path& out, OutputPolicy policy);
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept;
  OutputFile& operator=(OutputFile&&) noexcept;
  const std::filesystem::path& partial() const;
  void publish();

 private:
  struct State;
  explicit OutputFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace espalier
