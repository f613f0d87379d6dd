// A row of a data file as what it means, before any token: a text, a prompt with its answer, or a
// conversation.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "espalier/data/sft_prompts.h"
#include "espalier/data/sft_rows.h"
#include "espalier/io/table.h"
#include "espalier/text/chat_template.h"

namespace espalier {

struct PlainText {
  std::string text;
};
using SftSample = std::variant<PlainText, PromptText, std::vector<ChatMessage>>;

/// What kAuto means for a file whose first row this is. Throws Error(kInput, where) listing the
/// fields found and the layouts known.
SftFormat detect_sft_format(const TableValue& row, const std::string& where);

/// What is wrong with a row, in words that follow its place: "field 'output' is a number, expected
/// text".
struct BadRow {
  std::string what;
};

/// Reads a row of the format (not kAuto). An answer that is empty comes back empty.
std::variant<SftSample, BadRow> read_sft_sample(const TableValue& row, SftFormat format);

}  // namespace espalier
