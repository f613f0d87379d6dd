// From samples to rows of ids and labels, with every row that is not trained on counted.
#include "espalier/data/sft_rows.h"

#include <algorithm>
#include <array>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/units.h"
#include "espalier/data/sft_samples_internal.h"
#include "espalier/text/tokenizer_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kMostProblems = 20;
constexpr std::int64_t kRowsPerUpdate = 64;

constexpr std::array<std::string_view, 7> kFormatNames{"auto", "text",       "alpaca", "dolly",
                                                       "chat", "completion", "zero"};

/// Rows that cannot be used, collected so that a user mends them in one go.
class BadRows {
 public:
  explicit BadRows(std::string file) : file_(std::move(file)) {}
  void add(std::string where, std::string what) {
    rows_.emplace_back(std::move(where), std::move(what));
    if (rows_.size() >= kMostProblems) throw_if_any();
  }
  void throw_if_any() const {
    if (rows_.empty()) return;
    if (rows_.size() == 1)
      throw Error(ErrorKind::kInput, rows_[0].first, rows_[0].second).hint(kHint);
    ProblemList problems(ErrorKind::kInput, file_);
    for (const auto& [where, what] : rows_) problems.add(where + ": " + what);
    problems.throw_if_any(kHint);
  }

 private:
  static constexpr std::string_view kHint = "mend the rows, or name their layout with --format";
  std::string file_;
  std::vector<std::pair<std::string, std::string>> rows_;
};

class RowMaker {
 public:
  RowMaker(const Tokenizer& tokenizer, const SftOptions& options, TrainingRows& rows)
      : tokenizer_(tokenizer),
        options_(options),
        cutoff_(static_cast<std::size_t>(options.cutoff)),
        rows_(rows),
        before_(tokenizer.impl().surroundings.before),
        after_(tokenizer.impl().surroundings.after) {
    if (options.format == SftFormat::kChat) {
      if (!tokenizer.chat_template()) {
        throw Error(ErrorKind::kInput, "chat template", "the model comes without one")
            .hint("add chat_template.jinja to the model folder");
      }
      template_.emplace(*tokenizer.chat_template());
    }
    if (options.format == SftFormat::kDolly && options.dolly_mask == DollyMask::kCompat) {
      const std::vector<TokenId> key =
          tokenizer.encode(kDollyResponseKey, {.add_special_tokens = true});
      if (!key.empty()) compat_key_ = key.front();
    }
  }

  void operator()(const PlainText& sample) {
    if (sample.text.empty()) {
      ++rows_.counts.without_answer;
      return;
    }
    std::vector<TokenId> ids = around(encode(sample.text), SIZE_MAX);
    const bool ended = ends(ids);
    for (std::size_t begin = 0; begin < ids.size(); begin += cutoff_) {
      TrainingRow row;
      const std::size_t end = std::min(ids.size(), begin + cutoff_);
      row.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                     ids.begin() + static_cast<std::ptrdiff_t>(end));
      if (end == ids.size() && !ended) append_end(row.ids);
      row.labels = row.ids;
      // One token alone predicts nothing; it is the end of a text that fills its rows.
      if (row.ids.size() > 1) rows_.add(std::move(row));
    }
  }

  void operator()(const PromptText& sample) {
    if (sample.answer.empty()) {
      ++rows_.counts.without_answer;
      return;
    }
    const std::vector<TokenId> content = encode(sample.prompt + sample.answer);
    const bool dolly = options_.format == SftFormat::kDolly;
    const std::size_t whole = before_.size() + content.size() + after_.size();
    if (dolly && whole >= cutoff_) {
      ++rows_.counts.too_long;
      return;
    }
    TrainingRow row;
    row.ids = around(content, cutoff_);
    const std::size_t answer_end = row.ids.size() - std::min(after_.size(), row.ids.size());
    const std::size_t masked = masked_tokens(sample, row.ids);
    if (masked >= answer_end && options_.train_on == TrainOn::kAnswer) {
      ++rows_.counts.answer_cut;
      return;
    }
    const bool compat = dolly && options_.dolly_mask == DollyMask::kCompat;
    if (!compat && !ends(row.ids)) append_end(row.ids);
    row.labels = row.ids;
    std::fill_n(row.labels.begin(), std::min(masked, row.labels.size()), kIgnoredLabel);
    add(std::move(row), whole > cutoff_);
  }

  void operator()(const std::vector<ChatMessage>& messages) {
    ChatTokens chat = template_->encode_with_answers(tokenizer_, messages);
    TrainingRow row;
    row.ids = std::move(chat.ids);
    row.labels.assign(row.ids.size(), kIgnoredLabel);
    if (options_.train_on == TrainOn::kAll) row.labels = row.ids;
    for (const auto& [begin, end] : chat.answers) {
      std::copy(row.ids.begin() + static_cast<std::ptrdiff_t>(begin),
                row.ids.begin() + static_cast<std::ptrdiff_t>(end),
                row.labels.begin() + static_cast<std::ptrdiff_t>(begin));
    }
    if (predicted_tokens(row) == 0) {
      ++rows_.counts.without_answer;
      return;
    }
    const bool cut = row.ids.size() > cutoff_;
    if (cut) {
      row.ids.resize(cutoff_);
      row.labels.resize(cutoff_);
    }
    add(std::move(row), cut);
  }

 private:
  std::vector<TokenId> encode(std::string_view text) const {
    return tokenizer_.encode(text, {.special_in_text = options_.special_in_text});
  }

  /// What the tokenizer adds, around as much of the content as `most` tokens leave room for.
  std::vector<TokenId> around(const std::vector<TokenId>& content, std::size_t most) const {
    const std::size_t room = most - std::min(most, before_.size() + after_.size());
    std::vector<TokenId> ids = before_;
    ids.insert(ids.end(), content.begin(),
               content.begin() + static_cast<std::ptrdiff_t>(std::min(room, content.size())));
    ids.insert(ids.end(), after_.begin(), after_.end());
    if (ids.size() > most) ids.resize(most);
    return ids;
  }

  bool ends(const std::vector<TokenId>& ids) const {
    return !ids.empty() && tokenizer_.eos() == ids.back();
  }
  void append_end(std::vector<TokenId>& ids) const {
    if (tokenizer_.eos() && ids.size() < cutoff_) ids.push_back(*tokenizer_.eos());
  }

  std::size_t masked_tokens(const PromptText& sample, const std::vector<TokenId>& ids) const {
    if (options_.train_on == TrainOn::kAll) return 0;
    if (compat_key_) {
      const auto key = std::find(ids.begin(), ids.end(), *compat_key_);
      if (key == ids.end()) {
        throw Error(ErrorKind::kUnsupported, "--dolly-mask",
                    "compat finds no token of the response key in a row, and the reference stops "
                    "there too")
            .hint("--dolly-mask full");
      }
      return static_cast<std::size_t>(key - ids.begin()) + 1;
    }
    return before_.size() + encode(sample.prompt).size();
  }

  void add(TrainingRow row, bool cut) {
    if (predicted_tokens(row) == 0) {
      ++rows_.counts.answer_cut;
      return;
    }
    rows_.counts.truncated += cut;
    rows_.add(std::move(row));
  }

  const Tokenizer& tokenizer_;
  const SftOptions& options_;
  std::size_t cutoff_;
  TrainingRows& rows_;
  std::vector<TokenId> before_, after_;  // what the tokenizer puts around a text
  std::optional<ChatTemplate> template_;
  std::optional<TokenId> compat_key_;
};

SftData load_text_file(const std::filesystem::path& file, const Tokenizer& tokenizer,
                       const SftOptions& options, Reporter& reporter) {
  SftData data;
  data.format = SftFormat::kText;
  data.cutoff = options.cutoff > 0 ? options.cutoff : default_cutoff(data.format);
  const TokenText text = load_token_text(file, tokenizer, reporter, options.special_in_text);
  data.rows = rows_of_text(text, data.cutoff);
  data.sha256 = text.sha256;
  return data;
}

void check_trainable(const SftData& data, const std::filesystem::path& file) {
  if (!data.rows.empty()) return;
  Error error(ErrorKind::kInput, file.string(),
              data.rows.counts.read == 0
                  ? std::string("holds no rows")
                  : format("leaves nothing to train on: {}", describe_rows(data)));
  if (data.rows.counts.answer_cut + data.rows.counts.too_long > 0)
    error.hint(format("--seq-len {}", 2 * data.cutoff));
  throw error;
}

}  // namespace

std::string_view sft_format_name(SftFormat format) {
  return kFormatNames[static_cast<std::size_t>(format)];
}

SftFormat parse_sft_format(std::string_view name) {
  const auto it = std::find(kFormatNames.begin(), kFormatNames.end(), name);
  if (it == kFormatNames.end()) {
    throw Error(ErrorKind::kUsage, "--format",
                format("'{}' is no format, expected auto, text, alpaca, dolly, chat, completion or "
                       "zero",
                       name))
        .hint("--format auto");
  }
  return static_cast<SftFormat>(it - kFormatNames.begin());
}

std::int64_t default_cutoff(SftFormat format) {
  if (format == SftFormat::kText) return 128;
  return format == SftFormat::kAlpaca || format == SftFormat::kZero ? 256 : 1024;
}

SftData load_sft_data(const std::filesystem::path& file, const Tokenizer& tokenizer,
                      const SftOptions& given, Reporter& reporter, const StopToken& stop) {
  if (given.cutoff != 0 && given.cutoff < 2)
    throw Error(ErrorKind::kUsage, "--seq-len",
                format("is {}, but a row needs at least 2 tokens", given.cutoff));
  const bool as_text = given.format == SftFormat::kAuto || given.format == SftFormat::kText;
  if (as_text && !is_table_file(file)) return load_text_file(file, tokenizer, given, reporter);

  const std::unique_ptr<TableReader> table = open_table(file);
  const auto phase =
      reporter.phase(format("reading {}", file.filename().string()), table->bytes_total(), "bytes");
  SftData data;
  SftOptions options = given;
  BadRows bad(file.string());
  std::optional<RowMaker> make_row;
  TableValue row;
  while (table->next(row)) {
    if (stop.stop_requested()) throw Interrupted{};
    if (!make_row) {
      if (options.format == SftFormat::kAuto)
        options.format = detect_sft_format(row, table->where());
      if (options.cutoff == 0) options.cutoff = default_cutoff(options.format);
      data.format = options.format;
      data.cutoff = options.cutoff;
      make_row.emplace(tokenizer, options, data.rows);
    }
    ++data.rows.counts.read;
    const std::variant<SftSample, BadRow> sample = read_sft_sample(row, options.format);
    if (const BadRow* wrong = std::get_if<BadRow>(&sample)) {
      bad.add(table->where(), wrong->what);
      continue;
    }
    try {
      std::visit(*make_row, std::get<SftSample>(sample));
    } catch (Error& error) {
      throw std::move(error).during(format("reading {}", table->where()));
    }
    if (data.rows.counts.read % kRowsPerUpdate == 0) phase->update(table->bytes_read());
  }
  phase->update(table->bytes_total());
  bad.throw_if_any();
  check_trainable(data, file);
  data.sha256 = sha256_file(file);
  if (data.rows.counts.answer_cut + data.rows.counts.too_long + data.rows.counts.without_answer > 0)
    reporter.warn(format("{}: {}", file.string(), describe_rows(data)));
  return data;
}

std::string describe_rows(const SftData& data) {
  const RowCounts& counts = data.rows.counts;
  std::string text = format("{} rows of {}: {} to train on", format_count(counts.read),
                            sft_format_name(data.format), format_count(data.rows.size()));
  const auto say = [&](std::int64_t count, std::string_view what) {
    if (count > 0) text += format(", {} {}", format_count(count), what);
  };
  say(counts.without_answer, "without an answer");
  say(counts.answer_cut, format("whose answer lies behind {} tokens", data.cutoff));
  say(counts.too_long, format("of {} tokens or more", data.cutoff));
  say(counts.truncated, "cut off");
  return text;
}

}  // namespace espalier
