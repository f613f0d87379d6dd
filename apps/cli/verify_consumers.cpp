// See verify_consumers.h. Architecture lists are those that all recent releases of the programs
// share; an architecture that is not listed is reported as unknown to us, not as unsupported by
// them.
#include "apps/cli/verify_consumers.h"

#include <algorithm>
#include <array>
#include <set>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"

namespace espalier::cli {
namespace {

constexpr std::array<std::string_view, 19> kHfArchitectures{
    "LlamaForCausalLM",    "MistralForCausalLM", "MixtralForCausalLM",  "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM", "Qwen3ForCausalLM",   "Qwen3MoeForCausalLM", "GemmaForCausalLM",
    "Gemma2ForCausalLM",   "Gemma3ForCausalLM",  "Phi3ForCausalLM",     "PhiForCausalLM",
    "SmolLM3ForCausalLM",  "GPT2LMHeadModel",    "GPTNeoXForCausalLM",  "FalconForCausalLM",
    "StableLmForCausalLM", "CohereForCausalLM",  "Olmo2ForCausalLM"};

constexpr std::array<std::string_view, 17> kGgufArchitectures{
    "llama", "qwen2", "qwen2moe", "qwen3",  "qwen3moe", "gemma",     "gemma2",  "gemma3", "phi2",
    "phi3",  "gpt2",  "gptneox",  "falcon", "stablelm", "command-r", "smollm3", "olmo2"};

template <std::size_t N>
bool is_in(const std::array<std::string_view, N>& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

bool has_problem(const Verification& found, std::string_view check) {
  return std::any_of(found.checks.begin(), found.checks.end(), [&](const VerifyCheck& entry) {
    return entry.name == check && entry.status == VerifyCheck::Status::kProblem;
  });
}

/// Why nobody can load it; empty when files, config and tensors are in order.
std::string broken(const Verification& found) {
  for (const char* check : {"files", "config", "tensors"}) {
    if (has_problem(found, check))
      return format("the {} {} broken, see above", check,
                    std::string_view(check) == "config" ? "is" : "are");
  }
  return {};
}

Consumer ours(const Verification& found) {
  for (const VerifyCheck& check : found.checks) {
    if (check.name != "config" || check.status != VerifyCheck::Status::kWarning) continue;
    return {"espalier", false,
            check.details.empty() ? "unknown architecture" : check.details.front()};
  }
  if (const std::string why = broken(found); !why.empty()) return {"espalier", false, why};
  return {"espalier", true, "runs, prunes, finetunes and converts it"};
}

/// Files whose safetensors metadata lacks {"format": "pt"}, which transformers 4 asks for.
std::vector<std::string> files_without_format(const HfFolder& folder) {
  std::set<std::filesystem::path> paths;
  for (const StoredTensor& tensor : folder.tensors()) paths.insert(tensor.file->path());
  std::vector<std::string> names;
  for (const std::filesystem::path& path : paths) {
    const SafetensorsFile file = SafetensorsFile::open(path);
    const auto value = file.metadata().find("format");
    if (value == file.metadata().end() || value->second != "pt")
      names.push_back(path.filename().string());
  }
  return names;
}

bool needs_remote_code(const HfFolder& folder) {
  const Json config = parse_json(folder.config_text(), "config.json");
  return config.is_object() && config.contains("auto_map");
}

Consumer transformers_consumer(const HfFolder& folder, const Verification& found) {
  const std::string name = "transformers";
  if (needs_remote_code(folder) && !is_in(kHfArchitectures, found.architecture)) {
    return {name, false,
            "its config names code of its own (auto_map); only with trust_remote_code, which we do "
            "not recommend"};
  }
  if (!is_in(kHfArchitectures, found.architecture)) {
    return {name, false, format("the architecture {} is unknown to us", found.architecture)};
  }
  if (has_problem(found, "tokenizer"))
    return {name, true, "AutoModelForCausalLM only: the tokenizer is missing or broken"};
  std::string reason = format("AutoModelForCausalLM and AutoTokenizer ({})", found.architecture);
  if (const auto files = files_without_format(folder); !files.empty()) {
    reason += format("; releases before 5 ask for {{\"format\": \"pt\"}} in the metadata of {}",
                     files.front());
  }
  return {name, true, std::move(reason)};
}

Consumer vllm_consumer(const HfFolder& folder, const Verification& found,
                       const Consumer& transformers) {
  if (!transformers.loads) return {"vLLM", false, transformers.reason};
  if (has_problem(found, "tokenizer"))
    return {"vLLM", false, "needs the tokenizer beside the weights"};
  for (const StoredTensor& tensor : folder.tensors()) {
    if (tensor.dtype == Dtype::kF64)
      return {"vLLM", false, format("tensor {} is F64; convert to bfloat16 first", tensor.name)};
  }
  return {"vLLM", true, format("`vllm serve {}`", found.path)};
}

}  // namespace

std::vector<Consumer> no_consumers(const Verification& found) {
  std::vector<Consumer> consumers;
  for (const char* name : {"espalier", "transformers", "vLLM", "llama.cpp"}) {
    consumers.push_back({name, false, broken(found)});
  }
  return consumers;
}

std::vector<Consumer> hf_consumers(const HfFolder& folder, const Verification& found) {
  if (!broken(found).empty()) return no_consumers(found);
  const Consumer transformers = transformers_consumer(folder, found);
  return {ours(found),
          transformers,
          vllm_consumer(folder, found, transformers),
          {"llama.cpp", false,
           format("reads GGUF: `espalier convert {} --to gguf --out model.gguf`", found.path)}};
}

std::vector<Consumer> gguf_consumers(const GgufFile& file, const Verification& found) {
  std::vector<Consumer> consumers{ours(found)};
  Consumer llama{"llama.cpp", false, broken(found)};
  if (llama.reason.empty() && !is_in(kGgufArchitectures, found.architecture)) {
    llama.reason = format("the architecture {} is unknown to us", found.architecture);
  } else if (llama.reason.empty() && file.find("tokenizer.ggml.tokens") == nullptr) {
    llama.reason = "it has no tokenizer (tokenizer.ggml.tokens)";
  } else if (llama.reason.empty()) {
    llama.loads = true;
    llama.reason = format("architecture {}, {} tensors", found.architecture, found.tensors);
  }
  const std::string to_hf = format(
      "`espalier convert {} --to hf --out DIR` makes a folder that it loads fully", found.path);
  Consumer transformers{
      "transformers", llama.loads,
      llama.loads ? "from_pretrained(..., gguf_file=...), dequantised; " + to_hf : llama.reason};
  Consumer vllm{"vLLM", llama.loads,
                llama.loads ? "experimental, single-file GGUF only; " + to_hf : llama.reason};
  consumers.push_back(std::move(llama));
  consumers.push_back(std::move(transformers));
  consumers.push_back(std::move(vllm));
  return consumers;
}

}  // namespace espalier::cli
