// Python's string operations by character.
#include <algorithm>

#include <utf8proc.h>

#include "espalier/text/jinja_strings_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {
namespace {

bool is_blank(char32_t code) { return is_whitespace(code) || (code >= 0x1C && code <= 0x1F); }

bool is_line_end(char32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

std::size_t length_at(std::string_view text, std::size_t pos) {
  return utf8_length(static_cast<unsigned char>(text[pos]));
}

std::vector<MarkedText> split_blank(const MarkedText& text, std::int64_t limit, bool from_right) {
  std::vector<std::pair<std::size_t, std::size_t>> words;
  const std::string& bytes = text.bytes;
  for (std::size_t i = 0; i < bytes.size();) {
    while (i < bytes.size() && is_blank(utf8_decode(bytes, i))) i += length_at(bytes, i);
    const std::size_t begin = i;
    while (i < bytes.size() && !is_blank(utf8_decode(bytes, i))) i += length_at(bytes, i);
    if (begin < i) words.emplace_back(begin, i);
  }
  if (limit >= 0 && words.size() > static_cast<std::size_t>(limit) + 1) {
    // The rest stays one word, without the white space at the text's own end.
    const auto keep = static_cast<std::ptrdiff_t>(limit);
    if (from_right) {
      const std::size_t end = words[words.size() - static_cast<std::size_t>(limit) - 1].second;
      words.erase(words.begin(), words.end() - keep);
      std::size_t begin = 0;
      while (begin < end && is_blank(utf8_decode(bytes, begin))) begin += length_at(bytes, begin);
      words.insert(words.begin(), {begin, end});
    } else {
      const std::size_t begin = words[static_cast<std::size_t>(limit)].first;
      const std::size_t end = words.back().second;
      words.erase(words.begin() + keep, words.end());
      // Python keeps trailing white space of the last part.
      words.emplace_back(begin, std::max(end, bytes.size()));
    }
  }
  std::vector<MarkedText> out;
  for (const auto& [begin, end] : words) out.push_back(text.slice(begin, end));
  return out;
}

}  // namespace

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

MarkedText strip_text(const MarkedText& text, std::string_view chars, bool blank, bool left,
                      bool right) {
  const std::string& bytes = text.bytes;
  const auto goes = [&](std::size_t pos) {
    if (blank) return is_blank(utf8_decode(bytes, pos));
    const std::string_view character = std::string_view(bytes).substr(pos, length_at(bytes, pos));
    for (std::size_t i = 0; i < chars.size(); i += length_at(chars, i)) {
      if (chars.substr(i, length_at(chars, i)) == character) return true;
    }
    return false;
  };
  std::size_t begin = 0;
  std::size_t end = bytes.size();
  while (left && begin < end && goes(begin)) begin += length_at(bytes, begin);
  while (right && begin < end) {
    const std::size_t last = utf8_previous(bytes, end);
    if (!goes(last)) break;
    end = last;
  }
  return text.slice(begin, end);
}

std::vector<MarkedText> split_text(const MarkedText& text, std::string_view separator,
                                   std::int64_t limit, bool from_right) {
  if (separator.empty()) return split_blank(text, limit, from_right);
  std::vector<MarkedText> out;
  const std::string& bytes = text.bytes;
  if (!from_right) {
    std::size_t begin = 0;
    for (std::size_t hit = bytes.find(separator); hit != std::string::npos && limit != 0;
         hit = bytes.find(separator, begin), --limit) {
      out.push_back(text.slice(begin, hit));
      begin = hit + separator.size();
    }
    out.push_back(text.slice(begin, bytes.size()));
    return out;
  }
  std::size_t end = bytes.size();
  while (limit != 0 && end >= separator.size()) {
    const std::size_t hit = bytes.rfind(separator, end - separator.size());
    if (hit == std::string::npos) break;
    out.push_back(text.slice(hit + separator.size(), end));
    end = hit;
    --limit;
  }
  out.push_back(text.slice(0, end));
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<MarkedText> split_lines(const MarkedText& text) {
  std::vector<MarkedText> out;
  const std::string& bytes = text.bytes;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const char32_t code = utf8_decode(bytes, i);
    const std::size_t length = length_at(bytes, i);
    if (!is_line_end(code)) {
      i += length;
      continue;
    }
    out.push_back(text.slice(begin, i));
    i += length;
    if (code == '\r' && i < bytes.size() && bytes[i] == '\n') ++i;
    begin = i;
  }
  if (begin < bytes.size()) out.push_back(text.slice(begin, bytes.size()));
  return out;
}

MarkedText replace_text(const MarkedText& text, std::string_view from, const MarkedText& to,
                        std::int64_t limit) {
  MarkedText out;
  const std::string& bytes = text.bytes;
  std::size_t begin = 0;
  if (from.empty()) {  // between all characters
    while (limit != 0 && begin <= bytes.size()) {
      out.append(to);
      if (begin == bytes.size()) return out;
      out.append(text.slice(begin, begin + length_at(bytes, begin)));
      begin += length_at(bytes, begin);
      --limit;
    }
  } else {
    for (std::size_t hit = bytes.find(from); hit != std::string::npos && limit != 0;
         hit = bytes.find(from, begin), --limit) {
      out.append(text.slice(begin, hit));
      out.append(to);
      begin = hit + from.size();
    }
  }
  out.append(text.slice(begin, bytes.size()));
  return out;
}

MarkedText change_case(const MarkedText& text, Case how) {
  MarkedText out;
  const std::string& bytes = text.bytes;
  bool word_start = true;
  std::string changed;
  // Stretches that are marked or plain throughout, so that marks survive.
  std::size_t mark = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    while (mark < text.marks.size() && text.marks[mark].second <= i) ++mark;
    const bool marked = mark < text.marks.size() && text.marks[mark].first <= i;
    const std::size_t stop = mark == text.marks.size() ? bytes.size()
                             : marked                  ? text.marks[mark].second
                                                       : text.marks[mark].first;
    changed.clear();
    for (; i < stop && i < bytes.size(); i += length_at(bytes, i)) {
      const auto code = static_cast<utf8proc_int32_t>(utf8_decode(bytes, i));
      const bool letter = utf8proc_category(code) >= UTF8PROC_CATEGORY_LU &&
                          utf8proc_category(code) <= UTF8PROC_CATEGORY_LT;
      const bool upper = how == Case::kUpper || (how == Case::kTitle && word_start) ||
                         (how == Case::kCapital && i == 0);
      if (upper) {
        utf8_append(changed, static_cast<char32_t>(how == Case::kUpper ? utf8proc_toupper(code)
                                                                       : utf8proc_totitle(code)));
      } else {
        append_lowercase(changed, static_cast<char32_t>(code));
      }
      word_start = !letter;
    }
    out.append(marked ? MarkedText::from_message(changed) : MarkedText(changed));
  }
  return out;
}

}  // namespace espalier::text::jinja
