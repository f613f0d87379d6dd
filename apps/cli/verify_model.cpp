// See verify_model.h.
#include "apps/cli/verify_model.h"

#include <algorithm>
#include <functional>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/models/decoder/check_tensors.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/text/chat_template.h"
#include "espalier/text/tokenizer.h"

#include "apps/cli/scan_values.h"
#include "apps/cli/verify_consumers.h"

namespace espalier::cli {
namespace {

using Status = VerifyCheck::Status;

/// The lines of an error that lists several problems, or the one line it is.
std::vector<std::string> lines_of(const Error& error) {
  std::vector<std::string> lines;
  std::string_view rest = error.message();
  constexpr std::string_view kBullet = "\n  - ";
  std::size_t at = rest.find(kBullet);
  if (at == std::string_view::npos) return {error.what()};
  while (at != std::string_view::npos) {
    rest.remove_prefix(at + kBullet.size());
    at = rest.find(kBullet);
    lines.emplace_back(rest.substr(0, at));
  }
  return lines;
}

void add(Verification& result, std::string name, Status status, std::vector<std::string> details) {
  result.checks.push_back({std::move(name), status, std::move(details)});
}

/// The config as espalier reads it. An architecture that we do not have is a warning: others may
/// have it.
std::optional<DecoderConfig> check_config(Verification& result,
                                          const std::function<DecoderConfig()>& parse) {
  try {
    DecoderConfig config = parse();
    add(result, "config", Status::kOk,
        {format("{} layers of {}, vocabulary {}", config.num_layers, config.hidden_size,
                config.vocab_size)});
    return config;
  } catch (const Error& error) {
    const bool unsupported = error.kind() == ErrorKind::kUnsupported;
    add(result, "config", unsupported ? Status::kWarning : Status::kProblem, lines_of(error));
  }
  return std::nullopt;
}

/// Without a config that we know, layers must at least be 0..L-1 without a gap.
std::vector<std::string> layer_gaps(const std::vector<FoundTensor>& found) {
  std::vector<bool> seen;
  for (const FoundTensor& tensor : found) {
    const std::int64_t layer = layer_of_tensor(tensor.label);
    if (layer < 0 || layer > 100'000) continue;
    if (static_cast<std::size_t>(layer) >= seen.size())
      seen.resize(static_cast<std::size_t>(layer) + 1);
    seen[static_cast<std::size_t>(layer)] = true;
  }
  std::vector<std::string> problems;
  for (std::size_t layer = 0; layer < seen.size(); ++layer) {
    if (!seen[layer])
      problems.push_back(
          format("layer {} has no tensors, but layer {} has", layer, seen.size() - 1));
  }
  return problems;
}

void check_tensors(Verification& result, const std::optional<DecoderConfig>& config,
                   const std::vector<FoundTensor>& found,
                   const std::function<std::string(const std::string&)>& label_of) {
  result.tensors = static_cast<std::int64_t>(found.size());
  std::vector<std::string> problems =
      config ? check_decoder_tensors(*config, found, label_of) : layer_gaps(found);
  if (!problems.empty()) return add(result, "tensors", Status::kProblem, std::move(problems));
  add(result, "tensors", Status::kOk,
      {config ? format("{} tensors, all that the config asks for and nothing else", found.size())
              : format("{} tensors, layers without a gap", found.size())});
}

/// The index's total is informative only: every reader works without it.
void check_index(Verification& result, const HfFolder& folder) {
  const std::filesystem::path path = folder.path() / "model.safetensors.index.json";
  if (!std::filesystem::exists(path)) return;
  const Json index = read_json_file(path, 256u << 20);
  const auto metadata = index.find("metadata");
  if (metadata == index.end() || !metadata->is_object() || !metadata->contains("total_size")) {
    return add(result, "index", Status::kWarning, {"the index has no metadata.total_size"});
  }
  const Json& total = (*metadata)["total_size"];
  const std::uint64_t bytes = folder.weight_bytes();
  if (!total.is_number_unsigned() || total.get<std::uint64_t>() != bytes) {
    return add(result, "index", Status::kWarning,
               {format("the index says total_size {}, but the tensors hold {} bytes", total.dump(),
                       bytes)});
  }
  add(result, "index", Status::kOk,
      {format("every tensor is where the index places it, {} bytes", bytes)});
}

void check_template(Verification& result, const Tokenizer& tokenizer) {
  if (!tokenizer.chat_template())
    return add(result, "chat template", Status::kSkipped, {"there is none"});
  try {
    const ChatTemplate chat(*tokenizer.chat_template());
    const auto spelling = [&](std::optional<TokenId> id) {
      return id ? std::string(tokenizer.id_to_token(*id)) : std::string();
    };
    const std::string text = chat.render(
        {{"user", "hello"}}, true,
        {{"bos_token", spelling(tokenizer.bos())}, {"eos_token", spelling(tokenizer.eos())}});
    if (text.find("hello") == std::string::npos) {
      return add(result, "chat template", Status::kWarning,
                 {"a user's message does not appear in what it renders"});
    }
    add(result, "chat template", Status::kOk, {"renders a conversation"});
  } catch (const Error& error) {
    add(result, "chat template", Status::kWarning, {error.what()});
  }
}

/// Every token id that can come out of the tokenizer must have a row in the embedding.
void check_tokenizer(Verification& result, const std::optional<DecoderConfig>& config,
                     std::int64_t embedding_rows, const std::function<Tokenizer()>& load) {
  try {
    const Tokenizer tokenizer = load();
    std::vector<std::string> problems;
    const std::int64_t rows = config ? config->vocab_size : embedding_rows;
    if (rows > 0 && tokenizer.vocab_size() > rows) {
      problems.push_back(format("the tokenizer has {} tokens, but the embedding only {} rows",
                                tokenizer.vocab_size(), rows));
    }
    if (config) {
      for (const std::int64_t id : config->eos_token_ids) {
        if (id >= 0 && id < rows) continue;
        problems.push_back(format("eos_token_id {} is outside the vocabulary of {}", id, rows));
      }
    }
    if (!problems.empty()) {
      add(result, "tokenizer", Status::kProblem, std::move(problems));
    } else if (!tokenizer.eos() && (!config || config->eos_token_ids.empty())) {
      add(result, "tokenizer", Status::kWarning,
          {"there is no end-of-text token: generation stops only at its limit"});
    } else {
      add(result, "tokenizer", Status::kOk,
          {format("{} tokens for {} embedding rows", tokenizer.vocab_size(), rows)});
    }
    check_template(result, tokenizer);
  } catch (const Error& error) {
    add(result, "tokenizer",
        error.kind() == ErrorKind::kUnsupported ? Status::kWarning : Status::kProblem,
        lines_of(error));
  }
}

void check_values(Verification& result, const std::vector<ScanItem>& items, bool deep,
                  Reporter& reporter, const StopToken& stop) {
  if (!deep)
    return add(result, "values", Status::kSkipped,
               {"pass --deep to read every weight for NaN and Inf"});
  std::vector<std::string> problems, zeros;
  for (const ScanFinding& finding : scan_values(items, reporter, stop)) {
    if (finding.nan + finding.inf > 0) {
      problems.push_back(
          format("tensor {} holds {} NaN and {} Inf", finding.name, finding.nan, finding.inf));
    } else if (finding.name.ends_with("weight")) {
      zeros.push_back(format("tensor {} is all zeros", finding.name));
    }
  }
  for (const ScanItem& item : items) result.scanned_elements += item.elements;
  if (!problems.empty()) {
    add(result, "values", Status::kProblem, std::move(problems));
  } else if (!zeros.empty()) {
    add(result, "values", Status::kWarning, std::move(zeros));
  } else {
    add(result, "values", Status::kOk,
        {format("{} values, none NaN or Inf", format_count(result.scanned_elements))});
  }
}

std::string hf_architecture(const std::string& config_text, const std::string& source) {
  const Json config = parse_json(config_text, source);
  if (!config.is_object()) return {};
  const auto list = config.find("architectures");
  if (list != config.end() && list->is_array() && !list->empty() && list->front().is_string()) {
    return list->front().get<std::string>();
  }
  return {};
}

std::optional<DecoderConfig> check_hf_config(Verification& result,
                                             const std::filesystem::path& path) {
  const std::string source = (path / "config.json").string();
  try {
    const std::string text = read_file(source, 16u << 20);
    result.architecture = hf_architecture(text, source);
    return check_config(result, [&] { return parse_hf_decoder_config(text, source); });
  } catch (const Error& error) {
    add(result, "config", Status::kProblem, lines_of(error));
  }
  return std::nullopt;
}

void check_hf_tokenizer(Verification& result, const std::optional<DecoderConfig>& config,
                        std::int64_t rows, const std::filesystem::path& path) {
  if (std::filesystem::exists(path / "tokenizer.json") ||
      std::filesystem::exists(path / "tokenizer.model")) {
    return check_tokenizer(result, config, rows, [&] { return Tokenizer::from_folder(path); });
  }
  add(result, "tokenizer", Status::kProblem,
      {"neither tokenizer.json nor tokenizer.model is in the folder"});
}

Verification verify_hf(const std::filesystem::path& path, bool deep, Reporter& reporter,
                       const StopToken& stop) {
  Verification result{path.string(), "hf", {}, {}, {}, 0, 0, deep};
  std::optional<HfFolder> opened;
  try {
    opened = HfFolder::open(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInput) throw;
    // What can be looked at without the weights is looked at all the same.
    add(result, "files", Status::kProblem, lines_of(error));
    if (std::filesystem::exists(path / "config.json")) {
      check_hf_tokenizer(result, check_hf_config(result, path), 0, path);
    }
    result.consumers = no_consumers(result);
    return result;
  }
  const HfFolder& folder = *opened;
  const Bytes bytes{static_cast<std::int64_t>(folder.weight_bytes())};
  add(result, "files", Status::kOk, {format("{} of weights, headers in order", to_string(bytes))});
  const auto config = check_hf_config(result, path);
  std::vector<FoundTensor> found;
  std::vector<ScanItem> items;
  for (const StoredTensor& tensor : folder.tensors()) {
    found.push_back({tensor.name, tensor.name, tensor.shape});
    items.push_back({tensor.name, tensor.data, tensor.numel(), tensor.file, false, GgufType::kF32,
                     tensor.dtype});
  }
  check_tensors(result, config, found, [](const std::string& name) { return name; });
  check_index(result, folder);
  const StoredTensor* embedding = folder.find("model.embed_tokens.weight");
  const bool has_rows = embedding != nullptr && !embedding->shape.empty();
  check_hf_tokenizer(result, config, has_rows ? embedding->shape.front() : 0, path);
  check_values(result, items, deep, reporter, stop);
  result.consumers = hf_consumers(folder, result);
  return result;
}

Verification verify_gguf(const std::filesystem::path& path, bool deep, Reporter& reporter,
                         const StopToken& stop) {
  Verification result{path.string(), "gguf", {}, {}, {}, 0, 0, deep};
  std::optional<GgufFile> opened;
  try {
    opened = GgufFile::open(path);
    result.architecture = opened->architecture();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInput) throw;
    add(result, "files", Status::kProblem, lines_of(error));
    result.consumers = no_consumers(result);
    return result;
  }
  const GgufFile& file = *opened;
  std::vector<FoundTensor> found;
  std::vector<ScanItem> items;
  std::int64_t bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    found.push_back({{}, tensor.name, tensor.shape});
    items.push_back(
        {tensor.name, tensor.data, tensor.numel(), tensor.file, true, tensor.type, Dtype::kF32});
    bytes += static_cast<std::int64_t>(tensor.data.size());
  }
  add(result, "files", Status::kOk,
      {format("{} of weights, header in order", to_string(Bytes{bytes}))});
  const auto config = check_config(result, [&] { return parse_gguf_decoder_config(file); });
  const DecoderFamily family = config ? config->family : DecoderFamily::kLlama;
  for (FoundTensor& tensor : found) tensor.name = hf_name_of(tensor.label, family);
  check_tensors(result, config, found,
                [&](const std::string& name) { return gguf_name_of(name, family); });
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  const std::int64_t rows =
      embedding != nullptr && !embedding->shape.empty() ? embedding->shape.front() : 0;
  if (file.find("tokenizer.ggml.tokens") != nullptr) {
    check_tokenizer(result, config, rows, [&] { return Tokenizer::from_gguf(file); });
  } else {
    add(result, "tokenizer", Status::kProblem,
        {"the file has no tokenizer (key tokenizer.ggml.tokens)"});
  }
  check_values(result, items, deep, reporter, stop);
  result.consumers = gguf_consumers(file, result);
  return result;
}

}  // namespace

std::vector<std::string> Verification::all(VerifyCheck::Status status) const {
  std::vector<std::string> lines;
  for (const VerifyCheck& check : checks) {
    if (check.status != status) continue;
    for (const std::string& detail : check.details)
      lines.push_back(espalier::format("{}: {}", check.name, detail));
  }
  return lines;
}

Verification verify_model(const ModelLocation& location, bool deep, Reporter& reporter,
                          const StopToken& stop) {
  return location.kind == ModelLocation::Kind::kGguf
             ? verify_gguf(location.path, deep, reporter, stop)
             : verify_hf(location.path, deep, reporter, stop);
}

}  // namespace espalier::cli
