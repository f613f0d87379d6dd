// Construction and printing of Error.
#include "espalier/base/error.h"

#include <algorithm>
#include <utility>

#include "espalier/base/format.h"

namespace espalier {

namespace {

// Paths as they stand in the repository, whatever folder the build ran in.
std::string source_position(std::string_view path, std::uint_least32_t line) {
  std::size_t start = 0;
  for (const std::string_view root : {"/espalier/", "/apps/", "/tests/", "/benches/"}) {
    const std::size_t at = path.rfind(root);
    if (at != std::string_view::npos) start = std::max(start, at + 1);
  }
  return format("{}:{}", path.substr(start), line);
}

}  // namespace

Error::Error(ErrorKind kind, std::string_view subject, std::string_view message,
             std::source_location where)
    : kind_(kind), subject_(subject), message_(message), where_(where) {
  what_ = subject_.empty() ? message_ : subject_ + ": " + message_;
}

Error& Error::hint(std::string_view text) & {
  hint_ = text;
  return *this;
}

Error&& Error::hint(std::string_view text) && {
  hint_ = text;
  return std::move(*this);
}

Error& Error::during(std::string_view what) & {
  context_.emplace_back(what);
  return *this;
}

Error&& Error::during(std::string_view what) && {
  context_.emplace_back(what);
  return std::move(*this);
}

std::string Error::where() const { return source_position(where_.file_name(), where_.line()); }

std::string Error::to_string() const {
  std::string text = "error: " + what_;
  for (const std::string& line : context_) text += "\n  while: " + line;
  if (!hint_.empty()) text += "\n  hint:  " + hint_;
  return text;
}

void ProblemList::throw_if_any(std::string_view hint, std::size_t limit,
                               std::source_location where) const {
  if (problems_.empty()) return;
  std::string message;
  if (problems_.size() == 1) {
    message = problems_.front();
  } else {
    message = format("{} problems:", problems_.size());
    const std::size_t shown = std::min(limit, problems_.size());
    for (std::size_t i = 0; i < shown; ++i) message += "\n  - " + problems_[i];
    if (shown < problems_.size()) message += format("\n  - and {} more", problems_.size() - shown);
  }
  throw Error(kind_, subject_, message, where).hint(hint);
}

void assertion_failed(const char* expression, const char* file, int line) {
  throw Error(ErrorKind::kInternal, source_position(file, static_cast<std::uint_least32_t>(line)),
              format("assertion failed: {}", expression))
      .hint("this is a bug in espalier; please report it with the command and run/manifest.json");
}

}  // namespace espalier
