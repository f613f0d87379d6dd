// OutputFile: OUT.partial, guarded by OUT.partial.lock, renamed to OUT.
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include <stdio.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/run/lock_internal.h"
#include "espalier/run/output_path_internal.h"
#include "espalier/run/publish_internal.h"
#include "espalier/run/run_folder.h"

namespace fs = std::filesystem;

namespace espalier {

using namespace run_internal;

struct OutputFile::State {
  fs::path out, partial, lock_path;
  OutputPolicy policy = OutputPolicy::kFresh;
  std::vector<fs::path> made_parents;
  FileDescriptor lock;
  pid_t owner = ::getpid();
  bool published = false;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (!lock.valid() || owner != ::getpid()) return;
    if (!published) ::unlink(partial.c_str());
    ::unlink(lock_path.c_str());
    lock.reset();
    if (!published) remove_empty_parents(made_parents);
  }
};

namespace {

void check_out_is_free(const fs::path& out, OutputPolicy policy) {
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(out, ignored);
  if (!fs::exists(status)) return;
  if (fs::is_directory(status)) {
    throw Error(ErrorKind::kUsage, out.string(), "is a folder, expected a file to write")
        .hint(format("pass --out {}", (out / "model.gguf").string()));
  }
  if (!fs::is_regular_file(status)) {
    throw Error(ErrorKind::kUsage, out.string(), "is neither a file nor free")
        .hint("choose another --out");
  }
  if (!may_overwrite(policy)) throw_exists(out, policy);
}

}  // namespace

OutputFile::OutputFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
OutputFile::OutputFile(OutputFile&&) noexcept = default;
OutputFile& OutputFile::operator=(OutputFile&&) noexcept = default;
OutputFile::~OutputFile() = default;

OutputFile OutputFile::create(const fs::path& out, OutputPolicy policy) {
  auto state = std::make_unique<State>();
  state->out = checked_out(out);
  state->partial = partial_path(state->out);
  state->lock_path = state->partial.string() + ".lock";
  state->policy = policy;
  state->made_parents = make_parents(state->out);
  try {
    const ParentGuard guard(parent_folder(state->out));
    check_out_is_free(state->out, policy);
    std::error_code ignored;
    const bool has_partial = fs::exists(fs::symlink_status(state->partial, ignored));
    const bool has_lock = fs::exists(state->lock_path, ignored);
    if (has_partial &&
        (!has_lock || !fs::is_regular_file(fs::symlink_status(state->partial, ignored)))) {
      throw Error(ErrorKind::kUsage, state->partial.string(),
                  "is in the way and was not written by espalier")
          .hint("move it away, or choose another --out");
    }
    state->lock = take_lock(state->lock_path, state->out);
    ::unlink(state->partial.c_str());
  } catch (...) {
    remove_empty_parents(state->made_parents);
    throw;
  }
  return OutputFile(std::move(state));
}

const fs::path& OutputFile::partial() const { return state_->partial; }

void OutputFile::publish() {
  State& state = *state_;
  ESPALIER_ASSERT(!state.published);
  const ParentGuard guard(parent_folder(state.out));
  check_out_is_free(state.out, state.policy);
  if (::rename(state.partial.c_str(), state.out.c_str()) != 0) throw_write_error(state.out, errno);
  sync_path(parent_folder(state.out));
  state.published = true;
}

}  // namespace espalier
