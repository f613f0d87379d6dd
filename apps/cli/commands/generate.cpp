// `espalier generate`: text from a decoder, streamed to stdout as it becomes certain.
#include <iostream>
#include <iterator>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/eval/forward_cost.h"
#include "espalier/sample/sampler.h"
#include "espalier/text/chat_template.h"

#include "apps/cli/chat_session.h"
#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/machine.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output.h"

namespace espalier::cli {
namespace {

// A prompt is read whole; anything longer than this is a file named by mistake.
constexpr std::uint64_t kMaxPromptBytes = 64u << 20;

struct GenerateOptions {
  ModelOptions model;
  CostOptions cost;
  std::optional<std::string> prompt;
  std::string prompt_file, system;
  bool chat = false, special_in_text = true;
  std::int64_t max_new_tokens = 128;
  bool greedy = false, ignore_eos = false;
  std::optional<double> temperature, top_p;
  std::optional<std::int64_t> top_k;
  std::vector<std::string> stop;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("Prompt");
    option("prompt", prompt, "the text to go on from; - reads it from standard input",
           placeholder("TEXT"));
    option("prompt_file", prompt_file, "read the prompt from a file; - is standard input",
           placeholder("FILE"));
    option(
        "chat", chat,
        "the prompt is a user's message: wrap it in the model's chat template; without a prompt, "
        "hold a conversation, each line of standard input a turn");
    option("system", system, "system message in front of the user's, with --chat",
           placeholder("TEXT"));
    option("special_in_text", special_in_text,
           "special tokens written in the prompt become their ids, as in transformers; with --chat "
           "they never do");
    option.group("Sampling");
    option("max_new_tokens", max_new_tokens, "stop after this many tokens", at_least(0));
    option("greedy", greedy,
           "always take the likeliest token; the default unless one of the next three is given");
    option("temperature", temperature, "divide the scores by this before sampling; 0 is greedy",
           at_least(0));
    option("top_k", top_k, "sample among the K likeliest tokens; 0 is all", at_least(0));
    option("top_p", top_p,
           "sample among the likeliest tokens that hold this share of the probability",
           in_range(0, 1));
    option("stop", stop, "end before any of these texts; may be repeated", placeholder("TEXT"));
    option("ignore_eos", ignore_eos, "go on after an end-of-text token");
    cost.visit(option);
  }
};

std::string read_prompt(const GenerateOptions& o) {
  if (o.prompt.has_value() == !o.prompt_file.empty()) {
    throw Error(ErrorKind::kUsage, "--prompt",
                o.prompt ? "is given together with --prompt-file, expected one of them"
                         : "or --prompt-file is needed")
        .hint("--prompt \"Once upon a time\"");
  }
  if (o.prompt && *o.prompt != "-") return *o.prompt;
  if (!o.prompt && o.prompt_file != "-") return read_file(o.prompt_file, kMaxPromptBytes);
  std::string text;
  char buffer[65536];
  while (text.size() <= kMaxPromptBytes &&
         (std::cin.read(buffer, sizeof buffer) || std::cin.gcount() > 0)) {
    text.append(buffer, static_cast<std::size_t>(std::cin.gcount()));
  }
  if (text.size() > kMaxPromptBytes)
    throw Error(ErrorKind::kInput, "standard input",
                "holds more than 64 MiB, too long for a prompt");
  return text;
}

SamplingOptions sampling_options(const GenerateOptions& o, std::int64_t seed) {
  const bool sampled = o.temperature || o.top_k || o.top_p;
  if (o.greedy && sampled && o.temperature.value_or(1) != 0) {
    throw Error(ErrorKind::kUsage, "--greedy", "contradicts --temperature, --top-k or --top-p")
        .hint("leave one of them out");
  }
  if (o.top_p && *o.top_p == 0)
    throw Error(ErrorKind::kUsage, "--top-p", "is 0, expected above 0 and at most 1")
        .hint("--greedy");
  SamplingOptions options;
  options.temperature = o.greedy || !sampled ? 0 : o.temperature.value_or(1);
  options.top_k = o.top_k.value_or(0);
  options.top_p = o.top_p.value_or(1);
  options.max_new_tokens = o.max_new_tokens;
  options.seed = static_cast<std::uint64_t>(seed);
  options.stop = o.stop;
  options.ignore_eos = o.ignore_eos;
  return options;
}

std::vector<TokenId> encode_prompt(const GenerateOptions& o, const Tokenizer& tokenizer,
                                   const std::string& text) {
  if (!o.chat) {
    if (!o.system.empty())
      throw Error(ErrorKind::kUsage, "--system", "has no meaning without --chat").hint("--chat");
    return tokenizer.encode(text,
                            {.add_special_tokens = true, .special_in_text = o.special_in_text});
  }
  std::vector<ChatMessage> messages;
  if (!o.system.empty()) messages.push_back({"system", o.system});
  messages.push_back({"user", text});
  return encode_chat(tokenizer, messages, /*add_generation_prompt=*/true);
}

CostEstimate estimate(const GenerateOptions& o, const DecoderConfig& config,
                      std::int64_t prompt_tokens, at::Device device) {
  const at::ScalarType type = o.model.scalar_type();
  const std::int64_t length = std::min(config.context_length, prompt_tokens + o.max_new_tokens);
  const auto cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * length *
                     static_cast<std::int64_t>(c10::elementSize(type));
  const std::int64_t bytes =
      weight_bytes(config, type) + cache +
      forward_bytes(config, std::min<std::int64_t>(prompt_tokens, 512), type);
  CostEstimate cost;
  cost.peak_memory = {process_bytes() + (device.is_cpu() ? bytes : 0)};
  cost.peak_device_memory = {device.is_cpu() ? 0 : bytes};
  // A step reads every weight once: 10 GB/s is what two threads of a common machine sustain.
  const double steps = static_cast<double>(o.max_new_tokens) *
                       static_cast<double>(weight_bytes(config, type)) /
                       (device.is_cpu() ? 1e10 : 1e12);
  cost.seconds = layer_flops(config, config.num_layers, prompt_tokens, prompt_tokens) /
                     measure_flops_per_second(config, type, device) +
                 steps;
  cost.note = format("at most {} tokens after a prompt of {}", o.max_new_tokens, prompt_tokens);
  return cost;
}

/// With --chat: a model whose settings do not name the template's end of turn would talk on.
void end_at_turns(SamplingOptions& sampling, const Tokenizer& tokenizer) {
  if (!tokenizer.chat_template()) return;
  if (const auto id = ChatTemplate(*tokenizer.chat_template()).end_of_turn(tokenizer))
    sampling.end_ids.push_back(*id);
}

std::string result_json(const GenerateOptions& o, const std::string& prompt,
                        const SamplingOptions& sampling, const Generation& g, at::Device device) {
  const auto rate = [](std::size_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  Json json;
  json["schema"] = "espalier.generate/1";
  json["model"] = o.model.model;
  json["prompt"] = prompt;
  json["text"] = g.text;
  json["token_ids"] = g.token_ids;
  json["finish_reason"] = g.finish_reason;
  json["tokens_per_second"] = rate(g.token_ids.size(), g.decode_seconds);
  json["prompt_tokens"] = g.prompt_tokens;
  json["prompt_tokens_per_second"] =
      rate(static_cast<std::size_t>(g.prompt_tokens), g.prefill_seconds);
  json["config"] = {{"dtype", o.model.dtype},  {"device", device.str()},
                    {"chat", o.chat},          {"temperature", sampling.temperature},
                    {"top_k", sampling.top_k}, {"top_p", sampling.top_p},
                    {"seed", sampling.seed},   {"max_new_tokens", sampling.max_new_tokens},
                    {"stop", sampling.stop}};
  json["peak_rss_bytes"] = peak_rss().count;
  json["peak_device_bytes"] = peak_device_bytes(device);
  return dump_json(json);
}

std::string session_json(const GenerateOptions& o, const SamplingOptions& sampling,
                         const std::vector<ChatExchange>& exchanges, at::Device device) {
  const ChatExchange& last = exchanges.back();
  Json json = parse_json(result_json(o, last.user, sampling, last.answer, device), "result");
  json["turns"] = Json::array();
  for (const auto& [user, answer] : exchanges) {
    json["turns"].push_back({{"prompt", user},
                             {"text", answer.text},
                             {"token_ids", answer.token_ids},
                             {"finish_reason", answer.finish_reason},
                             {"prompt_tokens", answer.prompt_tokens},
                             {"prefilled_tokens", answer.prefilled_tokens}});
  }
  return dump_json(json);
}

/// `generate --chat` without a prompt.
int run_conversation(const GenerateOptions& o, SamplingOptions sampling, Context& context) {
  const ModelLocation location = o.model.locate();
  const at::Device device = ModelOptions::device(context);
  const Tokenizer tokenizer = Tokenizer::load(location.path);
  Decoder model = Decoder::load(location.path, o.model.scalar_type(), device);
  model.decode_from_file();
  Conversation conversation(model, tokenizer, o.system);
  end_at_turns(sampling, tokenizer);
  const std::vector<ChatExchange> exchanges = run_chat_session(conversation, sampling, context);
  context.print_result("", session_json(o, sampling, exchanges, device));
  return 0;
}

int run_generate(const GenerateOptions& o, Context& context) {
  SamplingOptions sampling = sampling_options(o, context.common.seed);
  if (o.chat && !o.prompt && o.prompt_file.empty() && !o.cost.dry_run)
    return run_conversation(o, std::move(sampling), context);
  const ModelLocation location = o.model.locate();
  const at::Device device = ModelOptions::device(context);
  const std::string text = read_prompt(o);
  const std::shared_ptr<const DecoderCheckpoint> checkpoint =
      DecoderCheckpoint::open(location.path);
  const Tokenizer tokenizer = Tokenizer::load(location.path);
  const std::vector<TokenId> prompt = encode_prompt(o, tokenizer, text);
  if (o.chat) end_at_turns(sampling, tokenizer);
  if (o.cost.dry_run) {
    print_cost(context, "generate",
               estimate(o, checkpoint->config(), static_cast<std::int64_t>(prompt.size()), device),
               "");
    return 0;
  }
  Decoder model = Decoder::load(checkpoint, o.model.scalar_type(), device);
  model.decode_from_file();
  const bool stream = !context.common.json;
  const auto on_text = [&](std::string_view piece) {
    if (stream) write_stdout(piece);
  };
  const Generation g = generate(model, tokenizer, prompt, sampling, on_text, context.stop);
  if (stream && !g.text.ends_with('\n')) write_stdout("\n");
  context.reporter.info(format(
      "{} tokens, ended by {}, {:.1f} tokens/s after a prompt of {} in {}", g.token_ids.size(),
      g.finish_reason,
      g.decode_seconds > 0 ? static_cast<double>(g.token_ids.size()) / g.decode_seconds : 0.0,
      g.prompt_tokens, format_seconds(g.prefill_seconds)));
  context.print_result("", result_json(o, text, sampling, g, device));
  return 0;
}

}  // namespace

Command generate_command() {
  return make_command<GenerateOptions>(
      "generate", "Run", "text from a language model", run_generate,
      {"espalier generate MODEL --prompt \"Once upon a time\" --max-new-tokens 64",
       "espalier generate MODEL --chat --prompt \"Why is the sky blue?\" --temperature 0.7 --top-p "
       "0.9 --seed 1",
       "espalier generate MODEL --chat --system \"You answer in one sentence.\"",
       "espalier generate MODEL --prompt-file - --json < prompt.txt"});
}

}  // namespace espalier::cli
