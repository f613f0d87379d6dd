// The data a model is tuned on, as options of a verb: --data, --format, --seq-len, --holdout and
// what is masked.
#pragma once

#include <cstdint>
#include <string>

#include "espalier/data/sft_rows.h"
#include "espalier/options/options.h"

#include "apps/cli/command.h"

namespace espalier::cli {

struct SftDataOptions {
  std::string data, format = "auto", train_on = "answer", dolly_mask = "full";
  std::int64_t seq_len = 0, holdout = 0;
  bool special_in_text = true;

  template <class V>
  void visit(V&& option) {
    option.group("Data");
    option("data", data,
           "training data: a text, JSON Lines (.gz, .zst), a JSON array, or Parquet in builds with "
           "Arrow",
           placeholder("FILE") | required());
    option("format", format,
           "what --data holds; auto goes by the fields of the first row, and takes a file that is "
           "no table for a text",
           one_of({"auto", "text", "alpaca", "dolly", "chat", "completion", "zero"}));
    option("seq_len", seq_len,
           "tokens per row; longer rows are cut, of dolly dropped; 0 takes 128 of a text, 256 of "
           "alpaca, 1024 of the others",
           at_least(0));
    option("train_on", train_on, "answer: the prompt's tokens are not predicted; all: every token",
           one_of({"answer", "all"}));
    option(
        "dolly_mask", dolly_mask,
        "full masks everything before the answer; compat masks as the published code does, which "
        "stops at the first token of the response key",
        one_of({"full", "compat"}));
    option("holdout", holdout,
           "rows kept out of training to measure the loss on, drawn with seed 42", at_least(0));
    option(
        "special_in_text", special_in_text,
        "special tokens written in the data become their ids, as in transformers; off takes them "
        "as letters, and so does a chat always");
  }

  SftOptions library_options() const;
};

/// Rows to train on, and those kept out of it.
struct SftParts {
  SftData training;  // its rows are without the held-out ones
  TrainingRows held_out;
};

/// Reads --data and splits off --holdout. Says in one line what was read. Errors are those of
/// load_sft_data and split_held_out.
SftParts load_sft_parts(const SftDataOptions& options, const Tokenizer& tokenizer,
                        Reporter& reporter, const StopToken& stop);

}  // namespace espalier::cli
