// Regular expressions of tokenizer files, run by PCRE2 but read as the `tokenizers` package reads
// them (Oniguruma, Ruby syntax): see regex_dialect.cpp for what is translated and what is refused.
// A pattern is hostile input: matching is bounded, and what exceeds the bound is an Error, never a
// hang.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace espalier::text {

/// The same pattern in PCRE2's syntax. Throws Error(kUnsupported) naming a construct that has no
/// counterpart.
std::string to_pcre2_dialect(std::string_view pattern);

class Regex {
 public:
  /// Throws Error(kInput) when the pattern does not compile, Error(kUnsupported) for constructs we
  /// do not translate.
  explicit Regex(std::string_view pattern);
  /// Matches `text` literally.
  static Regex literal(std::string_view text);

  /// Calls found(begin, end) for each match in order. Empty matches are reported too, except
  /// directly after a match. `subject` must be valid UTF-8. Thread-safe. Throws Error(kUnsupported)
  /// when the match limit is hit.
  template <class Found>
  void for_each_match(std::string_view subject, Found&& found) const {
    Scan scan;
    while (next(subject, scan)) found(scan.begin, scan.end);
  }

  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  struct Scan {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t resume = 0;
    std::size_t last_end = static_cast<std::size_t>(-1);
  };
  Regex() = default;
  bool next(std::string_view subject, Scan& scan) const;
  void compile(const std::string& pcre_pattern);

  std::string pattern_;
  std::shared_ptr<const Code> code_;
};

}  // namespace espalier::text
