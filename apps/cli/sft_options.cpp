// From flags to training rows.
#include "apps/cli/sft_options.h"

namespace espalier::cli {

SftOptions SftDataOptions::library_options() const {
  SftOptions options;
  options.format = parse_sft_format(format);
  options.cutoff = seq_len;
  options.train_on = train_on == "all" ? TrainOn::kAll : TrainOn::kAnswer;
  options.dolly_mask = dolly_mask == "compat" ? DollyMask::kCompat : DollyMask::kFull;
  options.special_in_text = special_in_text;
  return options;
}

SftParts load_sft_parts(const SftDataOptions& options, const Tokenizer& tokenizer,
                        Reporter& reporter, const StopToken& stop) {
  SftParts parts;
  parts.training =
      load_sft_data(options.data, tokenizer, options.library_options(), reporter, stop);
  // Rows that were left out have been warned about, with the same line.
  const RowCounts& counts = parts.training.rows.counts;
  if (counts.without_answer + counts.answer_cut + counts.too_long == 0)
    reporter.info(describe_rows(parts.training));
  auto [training, held_out] = split_held_out(std::move(parts.training.rows), options.holdout);
  parts.training.rows = std::move(training);
  parts.held_out = std::move(held_out);
  return parts;
}

}  // namespace espalier::cli
