// Prompt texts of the instruction data sets that healing uses, letter for letter as their authors
// wrote them.
#pragma once

#include <string>
#include <string_view>

namespace espalier {

/// The model reads prompt + answer, and is trained on the answer.
struct PromptText {
  std::string prompt;
  std::string answer;
};

/// Alpaca's two templates; an empty `input` takes the one without.
/// Source: tatsu-lab/stanford_alpaca, as used by alpaca-lora.
PromptText alpaca_prompt(std::string_view instruction, std::string_view input,
                         std::string_view output);

/// Dolly's template; the answer ends in "\n\n### End". Source: databrickslabs/dolly.
PromptText dolly_prompt(std::string_view instruction, std::string_view context,
                        std::string_view response);

/// No template at all: the instruction ends in a colon, the answer follows after one space.
/// Source: LLM-Pruner's "zero" prompter.
PromptText zero_prompt(std::string_view instruction, std::string_view input,
                       std::string_view output);

/// Where Dolly's answers begin; what the reference's masking looks for.
inline constexpr std::string_view kDollyResponseKey = "### Response:\n";

}  // namespace espalier
