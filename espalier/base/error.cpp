// Construction and printing of Error.
#include "espalier/base/error.h"

#include <algorithm>
#include <utility>

#include "espalier/base/format.h"

namespace espalier {

Error::Error(ErrorKind kind, std::string_view subject, std::string_view message)
    : kind_(kind), subject_(subject), message_(message) {
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

std::string Error::to_string() const {
  std::string text = "error: " + what_;
  for (const std::string& line : context_) text += "\n  while: " + line;
  if (!hint_.empty()) text += "\n  hint:  " + hint_;
  return text;
}

void ProblemList::throw_if_any(std::string_view hint, std::size_t limit) const {
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
  throw Error(kind_, subject_, message).hint(hint);
}

void assertion_failed(const char* expression, const char* file, int line) {
  const std::string_view path(file);
  const std::size_t root = path.rfind("espalier/");
  throw Error(ErrorKind::kInternal, format("{}:{}", root == std::string_view::npos ? path : path.substr(root), line),
              format("assertion failed: {}", expression))
      .hint("this is a bug in espalier; please report it with the command and run/manifest.json");
}

}  // namespace espalier
