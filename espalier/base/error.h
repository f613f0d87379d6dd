// The one exception type of the library and its printed form. Every problem that a user, a file or
// the machine causes is an Error; a broken invariant of ours is ESPALIER_ASSERT.
#pragma once

#include <cstdint>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// What went wrong, in terms of who can mend it. The value is also the exit code of the program.
enum class ErrorKind : std::uint8_t {
  kUsage = 2,        // wrong flag or recipe key
  kInput = 3,        // a file or value cannot be used
  kUnsupported = 4,  // valid, but we do not have it
  kResource = 5,     // memory, disk, handles
  kEnvironment = 6,  // driver, device, optional package
  kInternal = 70,    // our bug
};

/// Throw as `throw Error(ErrorKind::kInput, "config.json", "num_hidden_layers is 32, but
/// ...").hint("...")`.
///
/// subject: the file, flag or tensor it is about. message: what is wrong, with found and expected
/// values, lower case, no full stop. hint: one thing that can be typed or done. Callers on the way
/// up add what they were doing with `during`, which prints as `while:` lines, innermost first.
class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string_view subject, std::string_view message,
        std::source_location where = std::source_location::current());

  Error&& hint(std::string_view text) &&;
  Error& hint(std::string_view text) &;
  Error&& during(std::string_view what) &&;
  Error& during(std::string_view what) &;

  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }
  const std::string& subject() const { return subject_; }
  const std::string& message() const { return message_; }
  const std::string& hint_text() const { return hint_; }
  const std::vector<std::string>& context() const { return context_; }
  /// Where it was thrown, as "espalier/io/gguf.cpp:120"; shown with --debug only.
  std::string where() const;

  /// "subject: message": the first line without the leading "error: ".
  const char* what() const noexcept override { return what_.c_str(); }

  /// The full form: `error: ...`, `  while: ...` lines, `  hint:  ...`; no trailing newline.
  std::string to_string() const;

 private:
  ErrorKind kind_;
  std::string subject_;
  std::string message_;
  std::string hint_;
  std::vector<std::string> context_;
  std::string what_;
  std::source_location where_;
};

/// Several problems found at one boundary, reported together: collect, then `throw_if_any`.
class ProblemList {
 public:
  ProblemList(ErrorKind kind, std::string subject) : kind_(kind), subject_(std::move(subject)) {}
  void add(std::string problem) { problems_.push_back(std::move(problem)); }
  bool empty() const { return problems_.empty(); }
  const std::vector<std::string>& problems() const { return problems_; }
  /// Throws one Error whose message is the only problem, or "N problems:" with one line each (at
  /// most `limit` lines).
  void throw_if_any(std::string_view hint = {}, std::size_t limit = 20,
                    std::source_location where = std::source_location::current()) const;

 private:
  ErrorKind kind_;
  std::string subject_;
  std::vector<std::string> problems_;
};

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace espalier

/// A broken invariant of ours: throws Error(kInternal). On in release builds too.
#define ESPALIER_ASSERT(condition)        \
  (static_cast<bool>(condition) ? void(0) \
                                : ::espalier::assertion_failed(#condition, __FILE__, __LINE__))
/// For hot loops: checked in debug builds only.
#ifdef NDEBUG
#define ESPALIER_DCHECK(condition) void(0)
#else
#define ESPALIER_DCHECK(condition) ESPALIER_ASSERT(condition)
#endif
