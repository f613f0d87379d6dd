// Layout of progress bars and lines.
#include <algorithm>
#include <vector>

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/run/progress_line_internal.h"

namespace espalier::run_internal {
namespace {

constexpr double kSampleSpacing = 0.5;  // seconds
constexpr std::size_t kMaxSamples = 60;
constexpr int kMinBar = 10;
constexpr int kMaxBar = 32;

double fraction(const ProgressState& state) {
  if (state.total <= 0) return 0;
  return std::clamp(static_cast<double>(state.done) / static_cast<double>(state.total), 0.0, 1.0);
}

std::string eta_text(const ProgressState& state) {
  if (state.total <= 0 || state.rate <= 0 || state.done >= state.total) return {};
  return "ETA " + format_seconds(static_cast<double>(state.total - state.done) / state.rate);
}

std::string singular(std::string_view unit) {
  return std::string(unit.ends_with('s') ? unit.substr(0, unit.size() - 1) : unit);
}

/// Cuts to `columns`, on a code point boundary.
std::string cut(std::string_view text, int columns) {
  std::size_t at = 0;
  for (int used = 0; at < text.size(); ++at) {
    const bool starts_code_point = (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80;
    if (starts_code_point && used++ == columns) break;
  }
  return std::string(text.substr(0, at));
}

std::string repeat(std::string_view text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

std::string draw_bar(double share, int width, bool unicode, bool color) {
  const int halves = static_cast<int>(share * width * 2);
  const int full = halves / 2;
  if (!unicode) return "[" + repeat("#", full) + repeat("-", width - full) + "]";
  const bool half = halves % 2 != 0;
  const std::string left = repeat("━", full) + (half ? "╸" : "");
  const std::string right = repeat("━", width - full - (half ? 1 : 0));
  if (!color) return left + repeat("─", width - full - (half ? 1 : 0));
  return "\033[36m" + left + "\033[90m" + right + "\033[0m";
}

/// Unknown total: a mark that moves with time, so that the line is seen to live.
std::string draw_pulse(double seconds, int width, bool unicode) {
  const int at = static_cast<int>(seconds * 4) % width;
  const std::string_view rail = unicode ? "─" : "-", mark = unicode ? "━" : "#";
  std::string text = repeat(rail, at) + std::string(mark) + repeat(rail, width - at - 1);
  return unicode ? text : "[" + text + "]";
}

}  // namespace

void RateMeter::add(double seconds, std::int64_t done) {
  if (samples_.empty()) first_done_ = done;
  const bool close =
      samples_.size() > 1 && seconds - samples_[samples_.size() - 2].seconds < kSampleSpacing;
  if (close) samples_.pop_back();
  samples_.push_back({seconds, done});
  if (samples_.size() > kMaxSamples) samples_.pop_front();
}

double RateMeter::rate(double seconds) const {
  if (samples_.size() < 2) return 0;
  const Sample& first = samples_.front();
  const Sample& last = samples_.back();
  // Silence longer than usual lowers the rate; the time since the last sample does not count before
  // that.
  const double usual = (last.seconds - first.seconds) / static_cast<double>(samples_.size() - 1);
  const double until = std::max(last.seconds, seconds - 2 * usual);
  const double span = until - first.seconds;
  return span > 0 ? static_cast<double>(last.done - first.done) / span : 0;
}

int text_columns(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string printable(std::string_view text, bool keep_newlines) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool kept = keep_newlines && (c == '\n' || c == '\t');
    // U+0080..U+009F are C1 controls, which some terminals obey: 0xc2 0x80..0x9f in UTF-8.
    const bool c1 =
        c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c1) ++i;
    out += ((c < 0x20 && !kept) || c == 0x7f || c1) ? '?' : text[i];
  }
  return out;
}

std::string progress_amount(const ProgressState& state) {
  if (state.unit == "bytes") {
    const std::string done = to_string(Bytes{state.done});
    return state.total > 0 ? format("{} of {}", done, to_string(Bytes{state.total})) : done;
  }
  const std::string done = format_count(state.done);
  return state.total > 0 ? format("{}/{} {}", done, format_count(state.total), state.unit)
                         : format("{} {}", done, state.unit);
}

std::string progress_rate(double rate, std::string_view unit) {
  if (rate <= 0) return {};
  if (unit == "bytes") return to_string(Bytes{static_cast<std::int64_t>(rate)}) + "/s";
  if (rate < 0.5) return format("{}/{}", format_seconds(1 / rate), singular(unit));
  if (rate < 9.95) return format("{:.1f} {}/s", rate, unit);
  return format("{} {}/s", format_count(static_cast<std::int64_t>(rate + 0.5)), unit);
}

std::string progress_text(const ProgressState& state) {
  std::string text = format("{}: {}", state.name, progress_amount(state));
  if (state.total > 0) text += format(" ({:.0f} %)", 100 * fraction(state));
  for (const std::string& part : {progress_rate(state.rate, state.unit), eta_text(state)}) {
    if (!part.empty()) text += ", " + part;
  }
  if (state.rss_bytes > 0) text += ", RSS " + to_string(Bytes{state.rss_bytes});
  if (!state.note.empty()) text += ", " + state.note;
  return text;
}

std::string progress_bar(const ProgressState& state, int columns, bool unicode, bool color) {
  const int width = std::max(columns, 1);
  std::string rss =
      state.rss_bytes > 0 ? "RSS " + to_string(Bytes{state.rss_bytes}) : std::string();
  std::string elapsed =
      state.total <= 0 || state.rate <= 0 ? format_seconds(state.seconds) : std::string();
  // In the order shown; `rank` is the order of leaving when there is no room (largest first).
  struct Part {
    std::string text;
    int rank;
  };
  std::vector<Part> parts;
  for (Part part :
       {Part{progress_amount(state), 0}, Part{progress_rate(state.rate, state.unit), 2},
        Part{eta_text(state), 1}, Part{elapsed, 3}, Part{rss, 5}, Part{state.note, 4}}) {
    if (!part.text.empty()) parts.push_back(std::move(part));
  }
  const int brackets = unicode ? 0 : 2;
  const auto used = [&] {
    int sum = text_columns(state.name);
    for (const Part& part : parts) sum += 2 + text_columns(part.text);
    return sum;
  };
  while (parts.size() > 1 && used() + 2 + kMinBar + brackets > width) {
    parts.erase(std::max_element(parts.begin(), parts.end(),
                                 [](const Part& a, const Part& b) { return a.rank < b.rank; }));
  }
  const int room = width - used() - 2 - brackets;
  std::string line = state.name;
  if (room >= kMinBar) {
    const int bar = std::min(room, kMaxBar);
    line += "  " + (state.total > 0 ? draw_bar(fraction(state), bar, unicode, color)
                                    : draw_pulse(state.seconds, bar, unicode));
    for (const Part& part : parts) line += "  " + part.text;
    return line;  // its visible columns fit by construction
  }
  for (const Part& part : parts) line += "  " + part.text;
  return cut(line, width);
}

}  // namespace espalier::run_internal
