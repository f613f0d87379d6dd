// Data files for supervised fine-tuning as training rows: instructions, chats, prompt/answer pairs
// and plain text, with the tokenisation rules of the published recipes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "espalier/base/reporter.h"
#include "espalier/data/training_rows.h"
#include "espalier/text/tokenizer.h"

namespace espalier {

enum class SftFormat : std::uint8_t {
  kAuto,        // by the fields of the first row; a file that is no table is text
  kText,        // a text as it stands; of a table the field `text`
  kAlpaca,      // instruction, input, output
  kDolly,       // instruction, context, response
  kChat,        // messages [{role, content}] or conversations [{from, value}]
  kCompletion,  // prompt, completion: joined as they stand
  kZero,        // Alpaca's fields without a template
};

/// Names as in --format: "auto", "text", "alpaca", "dolly", "chat", "completion", "zero".
std::string_view sft_format_name(SftFormat format);
/// Throws Error(kUsage) listing the names.
SftFormat parse_sft_format(std::string_view name);
/// Tokens per row when none are asked for: 128 of a text, 256 of Alpaca's rows, 1024 of the others.
std::int64_t default_cutoff(SftFormat format);

enum class DollyMask : std::uint8_t {
  kFull,    // everything up to and including "### Response:\n" is masked
  kCompat,  // the reference's mask: it ends at the first token of that key, wherever that occurs
};

enum class TrainOn : std::uint8_t {
  kAnswer,  // answers, and in chats what the assistant says
  kAll,     // every token
};

struct SftOptions {
  SftFormat format = SftFormat::kAuto;
  std::int64_t cutoff = 0;  // tokens a row may have; 0 is default_cutoff
  DollyMask dolly_mask = DollyMask::kFull;
  TrainOn train_on = TrainOn::kAnswer;
  /// Special tokens written in instructions and texts become their ids, as in transformers. The
  /// messages of a chat never do.
  bool special_in_text = true;
};

struct SftData {
  TrainingRows rows;
  SftFormat format = SftFormat::kText;  // what kAuto became
  std::int64_t cutoff = 0;
  std::string sha256;  // of the file's bytes
};

/// Reads and tokenises a whole file.
///
/// Instructions and completions: prompt + answer are encoded together with what the tokenizer adds
/// around a text, cut off on the right at `cutoff`; EOS is appended when the row does not end in it
/// and has room; the prompt's part, counted by the tokens of the prompt alone, is masked. Rows with
/// an empty answer, and rows whose answer was cut away, are skipped and counted. Dolly: only rows
/// shorter than the cutoff are kept; with kCompat no EOS is appended.
/// Chats: the model's own template; ids and answers as in ChatTemplate::encode_with_answers, cut
/// off on the right, nothing appended. Text: a file as it stands is cut into rows of `cutoff`
/// tokens; a table's `text` becomes as many rows as it needs, the last one with EOS when there is
/// room.
///
/// Throws Error(kInput) naming file:line and field for rows that do not fit the format (up to 20 of
/// them together), for a file without a row to train on, and when a chat meets a model without a
/// template. Progress in bytes; asks `stop` between rows.
SftData load_sft_data(const std::filesystem::path& file, const Tokenizer& tokenizer,
                      const SftOptions& options, Reporter& reporter,
                      const StopToken& stop = never_stop());

/// One line about what was read: "52,002 rows of alpaca: 51,974 to train on, 28 without an answer".
std::string describe_rows(const SftData& data);

}  // namespace espalier
