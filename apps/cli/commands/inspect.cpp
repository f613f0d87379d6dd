// `espalier inspect`: what is inside a model, and whether it will fit.
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/report/html_report.h"

#include "apps/cli/commands.h"
#include "apps/cli/machine.h"
#include "apps/cli/model_facts.h"
#include "apps/cli/model_options.h"

namespace espalier::cli {
namespace {

struct InspectOptions {
  ModelArgument model;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
  }
};

using Rows = std::vector<std::pair<std::string, std::string>>;

std::string size(std::int64_t bytes) { return to_string(Bytes{bytes}); }

/// Unknown numbers read as such instead of 0.
std::string count_or_unknown(std::int64_t count) {
  return count > 0 ? format_count(count) : "unknown";
}

std::string aligned(const Rows& rows) {
  std::size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : rows) text += format("  {:<{}}  {}\n", name, width, value);
  return text;
}

std::string tokenizer_text(const TokenizerFacts& tokenizer) {
  if (!tokenizer.found) return "none";
  if (!tokenizer.problem.empty()) return "cannot be loaded: " + tokenizer.problem;
  std::string text = format("{} tokens", format_count(tokenizer.vocab_size));
  if (tokenizer.bos)
    text += format(", BOS {}{}", *tokenizer.bos, tokenizer.adds_bos ? " (added to texts)" : "");
  if (tokenizer.eos) text += format(", EOS {}", *tokenizer.eos);
  return text + (tokenizer.has_chat_template ? ", chat template" : ", no chat template");
}

Rows model_rows(const ModelFacts& facts) {
  Rows rows{{"path", facts.path},
            {"format",
             format("{}, {} in {} file{}", facts.format == "gguf" ? "GGUF" : "Hugging Face folder",
                    size(facts.weight_bytes), facts.files, facts.files == 1 ? "" : "s")}};
  if (!facts.name.empty()) rows.emplace_back("name", facts.name);
  rows.emplace_back("architecture", facts.architecture);
  rows.emplace_back("layers", count_or_unknown(facts.layers));
  rows.emplace_back("parameters", format("{} ({} in each layer)", format_count(facts.parameters),
                                         count_or_unknown(facts.layer_parameters)));
  rows.emplace_back("hidden size",
                    format("{}, feed-forward {}", count_or_unknown(facts.hidden_size),
                           count_or_unknown(facts.intermediate_size)));
  rows.emplace_back(
      "attention",
      format("{} heads of {}, {} for keys and values", count_or_unknown(facts.num_heads),
             count_or_unknown(facts.head_dim), count_or_unknown(facts.num_kv_heads)));
  rows.emplace_back("vocabulary",
                    format("{}, embeddings {}", count_or_unknown(facts.vocab_size),
                           facts.tied_embeddings ? "tied to the head" : "apart from the head"));
  rows.emplace_back("context length", count_or_unknown(facts.context_length));
  rows.emplace_back("tokenizer", tokenizer_text(facts.tokenizer));
  rows.emplace_back("espalier can run it", facts.decoder ? "yes" : "no: " + facts.decoder_problem);
  return rows;
}

std::string dtype_table(const ModelFacts& facts) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, share] : facts.dtypes) {
    rows.push_back(
        {name, format_count(share.tensors), format_count(share.elements), size(share.bytes)});
  }
  return text_table({"stored as", "tensors", "elements", "size"}, rows);
}

std::string memory_table(const ModelFacts& facts, const MemoryEstimate& memory, Bytes available) {
  const auto fits = [&](std::int64_t bytes) -> std::string {
    if (bytes == 0) return "unknown";
    return available.count == 0 ? "unknown" : bytes <= available.count ? "yes" : "no";
  };
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](std::string what, std::int64_t bytes) {
    rows.push_back({std::move(what), bytes == 0 ? "unknown" : size(bytes), fits(bytes)});
  };
  add("weights as stored", memory.weights_as_stored);
  add("weights in float32", memory.weights_float32);
  add("weights in bfloat16", memory.weights_bfloat16);
  add("keys and values, 1,024 tokens, float32", memory.kv_per_1k_float32);
  add("keys and values, 1,024 tokens, bfloat16", memory.kv_per_1k_bfloat16);
  if (facts.context_length > 0) {
    add(format("keys and values, {} tokens, float32", format_count(facts.context_length)),
        memory.kv_at_context_float32);
    add(format("keys and values, {} tokens, bfloat16", format_count(facts.context_length)),
        memory.kv_at_context_bfloat16);
  }
  add("finetune --mode full, AdamW", memory.finetune_full);
  add(format("finetune --mode partial, head and last {} layers", memory.partial_last),
      memory.finetune_partial);
  return text_table({"memory", "size", "fits here"}, rows);
}

Json tokenizer_json(const TokenizerFacts& tokenizer) {
  Json json{{"found", tokenizer.found},
            {"vocab_size", tokenizer.vocab_size},
            {"adds_bos", tokenizer.adds_bos},
            {"chat_template", tokenizer.has_chat_template}};
  json["bos"] = tokenizer.bos ? Json(*tokenizer.bos) : Json();
  json["eos"] = tokenizer.eos ? Json(*tokenizer.eos) : Json();
  json["pad"] = tokenizer.pad ? Json(*tokenizer.pad) : Json();
  json["problem"] = tokenizer.problem.empty() ? Json() : Json(tokenizer.problem);
  return json;
}

std::string as_json(const ModelFacts& facts, const MemoryEstimate& memory, Bytes available) {
  Json dtypes = Json::object();
  for (const auto& [name, share] : facts.dtypes) {
    dtypes[name] = {
        {"tensors", share.tensors}, {"elements", share.elements}, {"bytes", share.bytes}};
  }
  return dump_json({{"schema", "espalier.inspect/1"},
                    {"model", facts.path},
                    {"format", facts.format},
                    {"architecture", facts.architecture},
                    {"layers", facts.layers},
                    {"parameters", facts.parameters},
                    {"parameters_per_layer", facts.layer_parameters},
                    {"dtypes", dtypes},
                    {"hidden_size", facts.hidden_size},
                    {"intermediate_size", facts.intermediate_size},
                    {"num_heads", facts.num_heads},
                    {"num_kv_heads", facts.num_kv_heads},
                    {"head_dim", facts.head_dim},
                    {"vocab_size", facts.vocab_size},
                    {"context_length", facts.context_length},
                    {"tied_embeddings", facts.tied_embeddings},
                    {"tensors", facts.tensors},
                    {"files", facts.files},
                    {"bytes", facts.weight_bytes},
                    {"tokenizer", tokenizer_json(facts.tokenizer)},
                    {"runs_here", facts.decoder.has_value()},
                    {"runs_here_problem", facts.decoder ? Json() : Json(facts.decoder_problem)},
                    {"memory",
                     {{"weights_as_stored_bytes", memory.weights_as_stored},
                      {"weights_float32_bytes", memory.weights_float32},
                      {"weights_bfloat16_bytes", memory.weights_bfloat16},
                      {"kv_per_1k_tokens_float32_bytes", memory.kv_per_1k_float32},
                      {"kv_per_1k_tokens_bfloat16_bytes", memory.kv_per_1k_bfloat16},
                      {"kv_at_context_float32_bytes", memory.kv_at_context_float32},
                      {"kv_at_context_bfloat16_bytes", memory.kv_at_context_bfloat16},
                      {"finetune_full_bytes", memory.finetune_full},
                      {"finetune_partial_bytes", memory.finetune_partial},
                      {"finetune_partial_last", memory.partial_last},
                      {"finetune_partial_trainable_parameters", memory.partial_trainable},
                      {"available_bytes", available.count}}}});
}

int run_inspect(const InspectOptions& options, Context& context) {
  const ModelFacts facts = read_model_facts(options.model.locate());
  const MemoryEstimate memory = estimate_memory(facts);
  const Bytes available = memory_facts().available;
  const std::string text = aligned(model_rows(facts)) + "\n" + dtype_table(facts) + "\n" +
                           memory_table(facts, memory, available) +
                           format("\n{} of memory are free here. Next: espalier verify {}\n",
                                  to_string(available), options.model.model);
  context.print_result(text, as_json(facts, memory, available));
  return 0;
}

}  // namespace

Command inspect_command() {
  return make_command<InspectOptions>(
      "inspect", "Check", "say what is inside a model and what memory it will take", run_inspect,
      {"espalier inspect models/SmolLM2-135M", "espalier inspect model.gguf --json"});
}

}  // namespace espalier::cli
