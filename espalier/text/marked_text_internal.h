// Text that remembers which of its bytes came from a message. Chat templates cut, strip and join
// what users wrote; the marks go with the bytes, so that the tokenizer can tell a user's
// "<|im_end|>" from the template's.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace espalier::text {

struct MarkedText {
  std::string bytes;
  std::vector<std::pair<std::size_t, std::size_t>>
      marks;  // [begin, end), sorted, not empty, not touching

  MarkedText() = default;
  MarkedText(std::string plain) : bytes(std::move(plain)) {}
  MarkedText(std::string_view plain) : bytes(plain) {}
  MarkedText(const char* plain) : bytes(plain) {}

  /// All of it from a message.
  static MarkedText from_message(std::string text);
  bool is_marked() const { return !marks.empty(); }
  void append(const MarkedText& other);
  MarkedText slice(std::size_t begin, std::size_t end) const;
  /// `changed` derived from this in a way that cannot be followed byte by byte: marked as a whole
  /// when anything here is.
  MarkedText derived(std::string changed) const;
};

}  // namespace espalier::text
