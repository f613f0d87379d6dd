// MarkedText: joining and cutting with marks.
#include <algorithm>

#include "espalier/text/marked_text_internal.h"

namespace espalier::text {

MarkedText MarkedText::from_message(std::string text) {
  MarkedText out(std::move(text));
  if (!out.bytes.empty()) out.marks = {{0, out.bytes.size()}};
  return out;
}

void MarkedText::append(const MarkedText& other) {
  const std::size_t shift = bytes.size();
  bytes += other.bytes;
  for (const auto& [begin, end] : other.marks) {
    if (!marks.empty() && marks.back().second == begin + shift) {
      marks.back().second = end + shift;
    } else {
      marks.emplace_back(begin + shift, end + shift);
    }
  }
}

MarkedText MarkedText::slice(std::size_t begin, std::size_t end) const {
  MarkedText out(bytes.substr(begin, end - begin));
  for (const auto& [from, to] : marks) {
    const std::size_t low = std::max(from, begin);
    const std::size_t high = std::min(to, end);
    if (low < high) out.marks.emplace_back(low - begin, high - begin);
  }
  return out;
}

MarkedText MarkedText::derived(std::string changed) const {
  return is_marked() ? from_message(std::move(changed)) : MarkedText(std::move(changed));
}

}  // namespace espalier::text
