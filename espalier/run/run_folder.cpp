// RunFolder: ties lock, metrics, manifest, log and publish together.
#include "espalier/run/run_folder.h"

#include <chrono>
#include <optional>
#include <system_error>

#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/run/lock_internal.h"
#include "espalier/run/log_tee_internal.h"
#include "espalier/run/manifest_internal.h"
#include "espalier/run/metrics_internal.h"
#include "espalier/run/output_path_internal.h"
#include "espalier/run/publish_internal.h"

namespace fs = std::filesystem;

namespace espalier {

using namespace run_internal;

struct RunFolder::State {
  fs::path out, partial;
  OutputPolicy policy = OutputPolicy::kFresh;
  std::vector<fs::path> made_parents;
  FileDescriptor lock;
  pid_t owner = ::getpid();  // a forked child must not remove its parent's folder
  bool resumed = false, kept = false, published = false;
  Manifest manifest;
  double earlier_seconds = 0;  // of interrupted sessions
  Stopwatch watch;
  std::optional<MetricSinks> metrics;
  std::map<std::string, std::string> digests;
  std::vector<std::unique_ptr<LogTee>> tees;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (!lock.valid() || published || owner != ::getpid()) return;
    try {
      if (kept) {
        manifest.state = "interrupted";
        write_manifest();
      } else {
        remove_marked_folder(partial);
        remove_empty_parents(made_parents);
      }
    } catch (const std::exception&) {
      // What could not be removed is known as ours by its mark, and the next run with this --out
      // removes it.
    }
  }

  void write_manifest() {
    manifest.wall_seconds = earlier_seconds + watch.seconds();
    write_file_atomically(partial / "run" / "manifest.json", manifest_text(manifest));
  }
};

namespace {

bool occupied(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path, ignored))) return false;
  return !fs::is_directory(path, ignored) || !is_empty_folder(path);
}

void check_out_is_free(const fs::path& out, OutputPolicy policy) {
  std::error_code ignored;
  if (!occupied(out)) return;
  if (!fs::is_directory(out, ignored)) {
    throw Error(ErrorKind::kUsage, out.string(), "is a file, expected a folder to write")
        .hint("choose another --out");
  }
  if (!may_overwrite(policy)) throw_exists(out, policy);
  if (!carries_mark(out)) {
    throw Error(ErrorKind::kUsage, out.string(),
                "was not written by espalier (it has no run/manifest.json), so --overwrite does "
                "not replace it")
        .hint("move it away, or choose another --out");
  }
}

void check_partial_is_ours(const fs::path& partial) {
  if (!occupied(partial)) return;
  std::error_code ignored;
  if (!fs::is_directory(partial, ignored) || !carries_mark(partial)) {
    throw Error(ErrorKind::kUsage, partial.string(),
                "is in the way and was not written by espalier")
        .hint("move it away, or choose another --out");
  }
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw_write_error(path, error.value());
}

void sync_tree(const fs::path& folder) {
  sync_path(folder / "run" / "manifest.json");
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory() && !entry.is_symlink()) sync_path(entry.path());
  }
  sync_path(folder);
}

}  // namespace

RunFolder::RunFolder(std::unique_ptr<State> state) : state_(std::move(state)) {}
RunFolder::RunFolder(RunFolder&&) noexcept = default;
RunFolder& RunFolder::operator=(RunFolder&&) noexcept = default;
RunFolder::~RunFolder() = default;

RunFolder RunFolder::create(const fs::path& out, OutputPolicy policy, RunFacts facts) {
  auto state = std::make_unique<State>();
  state->out = checked_out(out);
  state->partial = partial_path(state->out);
  state->policy = policy;
  state->made_parents = make_parents(state->out);
  const fs::path run_dir = state->partial / "run";
  try {
    const ParentGuard guard(parent_folder(state->out));
    recover_output(state->out);
    check_out_is_free(state->out, policy);
    check_partial_is_ours(state->partial);
    const bool has_earlier = occupied(state->partial);
    make_folder(run_dir);
    state->lock = take_lock(run_dir / "lock", state->out);
    state->resumed = has_earlier && may_resume(policy);
  } catch (...) {
    remove_empty_parents(state->made_parents);
    throw;
  }
  Manifest& manifest = state->manifest;
  manifest.facts = std::move(facts);
  manifest.started = utc_text(std::chrono::system_clock::now());
  if (state->resumed) {
    continue_manifest(manifest, run_dir / "manifest.json");
    state->earlier_seconds = manifest.wall_seconds;
  } else {
    remove_marked_folder(state->partial, /*keep_mark=*/true);
  }
  if (!manifest.facts.resolved_recipe.empty()) {
    write_file_atomically(run_dir / "recipe.resolved.yaml", manifest.facts.resolved_recipe);
  }
  state->write_manifest();
  state->metrics.emplace(run_dir);
  return RunFolder(std::move(state));
}

const fs::path& RunFolder::out() const { return state_->out; }
const fs::path& RunFolder::folder() const { return state_->partial; }
fs::path RunFolder::run_dir() const { return state_->partial / "run"; }
bool RunFolder::resumed() const { return state_->resumed; }

void RunFolder::keep() {
  state_->kept = true;
  state_->write_manifest();
}

void RunFolder::metrics(std::int64_t step,
                        const std::vector<std::pair<std::string, double>>& values) {
  for (const auto& [name, value] : values) ESPALIER_ASSERT(name != "step" && !name.empty());
  state_->metrics->row(step, values);
}

void RunFolder::truncate_metrics(std::int64_t first_dropped_step) {
  state_->metrics->truncate(first_dropped_step);
}

void RunFolder::add_input(const fs::path& path, std::string digest) {
  check_output_apart(state_->out, {path});
  std::error_code error;
  if (!fs::exists(path, error)) throw Error(ErrorKind::kInput, path.string(), "does not exist");
  state_->manifest.inputs.push_back({path.string(), bytes_of(path), std::move(digest)});
}

void RunFolder::add_output_digest(const std::string& relative_path, std::string digest) {
  state_->digests[fs::path(relative_path).lexically_normal().generic_string()] = std::move(digest);
}

void RunFolder::add_fact(std::string key, std::string json_value) {
  try {
    parse_json(json_value, key);
  } catch (const Error& error) {
    throw Error(ErrorKind::kInternal, "manifest fact " + key, error.what());
  }
  for (auto& [known, value] : state_->manifest.extra) {
    if (known != key) continue;
    value = std::move(json_value);
    return;
  }
  state_->manifest.extra.emplace_back(std::move(key), std::move(json_value));
}

Reporter& RunFolder::log_to_file(Reporter& next) {
  state_->tees.push_back(std::make_unique<LogTee>(run_dir() / "log.txt", next));
  return *state_->tees.back();
}

void RunFolder::publish() {
  State& state = *state_;
  ESPALIER_ASSERT(!state.published);
  state.metrics->close();
  state.manifest.outputs = list_outputs(state.partial, state.digests);
  state.manifest.state = "finished";
  state.manifest.finished = utc_text(std::chrono::system_clock::now());
  state.write_manifest();
  sync_tree(state.partial);
  try {
    publish_folder(state.out, may_overwrite(state.policy));
  } catch (...) {
    state.manifest.state = "running";
    state.manifest.finished.clear();
    throw;
  }
  state.published = true;
}

}  // namespace espalier
