// PrecompiledCharsmap: a bounds-checked walk over the double array.
#include <algorithm>

#include <utf8proc.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/precompiled_charsmap_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::size_t kGraphemeLimit = 6;  // longer graphemes are looked up by character

std::uint32_t read_u32(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  return value;
}

// Layout of a unit: bit 8 says that a value follows, bits 10 and up hold the offset to the
// children, shifted by 8 when bit 9 is set; the low byte is the label, and bit 31 marks a value.
bool has_leaf(std::uint32_t unit) { return ((unit >> 8) & 1) != 0; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FFu; }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

}  // namespace

PrecompiledCharsmap::PrecompiledCharsmap(std::string_view blob) {
  if (blob.size() < 4)
    throw Error(ErrorKind::kInput, "precompiled_charsmap",
                format("{} bytes are too few", blob.size()));
  const std::uint32_t size = read_u32(blob, 0);
  if (size > blob.size() - 4 || size % 4 != 0 || size == 0) {
    throw Error(ErrorKind::kInput, "precompiled_charsmap",
                format("its trie takes {} bytes of {}", size, blob.size() - 4));
  }
  trie_.reserve(size / 4);
  for (std::size_t at = 4; at < 4 + size; at += 4) trie_.push_back(read_u32(blob, at));
  replacements_ = blob.substr(4 + size);
}

std::optional<std::string_view> PrecompiledCharsmap::find(std::string_view key) const {
  std::size_t node = offset(trie_[0]);
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= trie_.size() || label(trie_[node]) != byte) return std::nullopt;
    const std::uint32_t unit = trie_[node];
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (node >= trie_.size()) return std::nullopt;
    const std::size_t start = trie_[node] & 0x7FFFFFFFu;
    if (start > replacements_.size()) return std::nullopt;
    return std::string_view(replacements_)
        .substr(start, std::min(replacements_.find('\0', start), replacements_.size()) - start);
  }
  return std::nullopt;
}

std::string PrecompiledCharsmap::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  const auto add = [&](std::string_view part) {
    const auto found = find(part);
    if (found) out += is_valid_utf8(*found) ? std::string(*found) : to_valid_utf8(*found);
    return found.has_value();
  };
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin + utf8_length(static_cast<unsigned char>(text[begin]));
    utf8proc_int32_t state = 0;
    auto previous = static_cast<utf8proc_int32_t>(utf8_decode(text, begin));
    while (end < text.size()) {
      const auto next = static_cast<utf8proc_int32_t>(utf8_decode(text, end));
      if (utf8proc_grapheme_break_stateful(previous, next, &state)) break;
      previous = next;
      end += utf8_length(static_cast<unsigned char>(text[end]));
    }
    const bool whole = end - begin < kGraphemeLimit && add(text.substr(begin, end - begin));
    for (std::size_t at = begin; !whole && at < end;) {
      const auto part = text.substr(at, utf8_length(static_cast<unsigned char>(text[at])));
      if (!add(part)) out += part;
      at += part.size();
    }
    begin = end;
  }
  return out;
}

}  // namespace espalier::text
