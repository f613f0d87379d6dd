// The texts. Every blank and line end in here is part of a published format.
#include "espalier/data/sft_prompts.h"

namespace espalier {
namespace {

constexpr std::string_view kIntro =
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n";
constexpr std::string_view kIntroWithInput =
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n";

std::string join(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

bool ends_a_sentence(std::string_view text) {
  return text.ends_with('.') || text.ends_with(':') || text.ends_with('?') || text.ends_with('!');
}

}  // namespace

PromptText alpaca_prompt(std::string_view instruction, std::string_view input,
                         std::string_view output) {
  if (input.empty()) {
    return {join({kIntro, "### Instruction:\n", instruction, "\n\n### Response:\n"}),
            std::string(output)};
  }
  return {join({kIntroWithInput, "### Instruction:\n", instruction, "\n\n### Input:\n", input,
                "\n\n### Response:\n"}),
          std::string(output)};
}

PromptText dolly_prompt(std::string_view instruction, std::string_view context,
                        std::string_view response) {
  std::string prompt = join({kIntro, "### Instruction:\n", instruction, "\n\n"});
  if (!context.empty()) prompt += join({"Input:\n", context, "\n\n"});
  prompt += kDollyResponseKey;
  return {std::move(prompt), join({response, "\n\n### End"})};
}

PromptText zero_prompt(std::string_view instruction, std::string_view input,
                       std::string_view output) {
  std::string prompt(instruction);
  if (prompt.ends_with('.')) prompt.back() = ':';
  if (!ends_a_sentence(prompt)) prompt += ':';
  prompt += ' ';
  if (!input.empty()) {
    prompt += input;
    if (!ends_a_sentence(input)) prompt += '.';
  }
  return {std::move(prompt), join({" ", output})};
}

}  // namespace espalier
