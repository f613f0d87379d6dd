// Speaks for our tokenizers to a parity script: one JSON request per line on stdin, one JSON answer
// per line on stdout.
//   tokenizer_probe FOLDER|FILE.gguf|tokenizer.json|tokenizer.model
//   tokenizer_probe --to-gguf FOLDER FILE.gguf ROWS    the folder's tokenizer as a GGUF file
//   without tensors tokenizer_probe --to-hf FILE.gguf FOLDER           and back
// Requests: {"encode": text, "special": bool, "special_in_text": bool} -> {"ids": [...]}
//           {"encode_base64": bytes, ...} -> {"ids": [...]}          for text that is not valid
//           UTF-8
//           {"decode": ids, "skip_special": bool} -> {"text": ..., "streamed": ...}
//           {"render": {"messages": [...], "add_generation_prompt": bool}} -> {"text": ...}
//           {"chat": {"messages": [...], "add_generation_prompt": bool}} -> {"ids": [...]}
//           {"template": source, "messages": [...], "add_generation_prompt": bool, "strings":
//           {...}} -> {"text": ...}
// An Error becomes {"error": message, "kind": exit code}.
#include <filesystem>
#include <iostream>
#include <string>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/gguf.h"
#include "espalier/text/base64_internal.h"
#include "espalier/text/chat_template.h"
#include "espalier/text/export.h"
#include "espalier/text/tokenizer.h"

namespace espalier {
namespace {

Tokenizer load(const std::filesystem::path& path) {
  if (path.extension() == ".json") return Tokenizer::from_json(read_file(path), path.string());
  if (path.extension() == ".model") return Tokenizer::from_sentencepiece(path);
  return Tokenizer::load(path);
}

std::vector<ChatMessage> messages_of(const Json& list) {
  std::vector<ChatMessage> messages;
  for (const Json& message : list)
    messages.push_back(
        {message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  return messages;
}

Json answer(const Tokenizer& tokenizer, const Json& request) {
  if (request.contains("encode") || request.contains("encode_base64")) {
    const EncodeOptions options{.add_special_tokens = request.value("special", false),
                                .special_in_text = request.value("special_in_text", true)};
    const std::string text =
        request.contains("encode")
            ? request.at("encode").get<std::string>()
            : text::base64_decode(request.at("encode_base64").get<std::string>());
    return {{"ids", tokenizer.encode(text, options)}};
  }
  if (request.contains("decode")) {
    const auto ids = request.at("decode").get<std::vector<TokenId>>();
    const bool skip = request.value("skip_special", false);
    StreamDecoder stream(tokenizer, skip);
    std::string streamed;
    for (const TokenId id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    return {{"text", tokenizer.decode(ids, skip)}, {"streamed", streamed}};
  }
  if (request.contains("template")) {
    const ChatTemplate chat(request.at("template").get<std::string>());
    return {{"text", chat.render(messages_of(request.at("messages")),
                                 request.value("add_generation_prompt", false),
                                 request.value("strings", std::map<std::string, std::string>()))}};
  }
  const Json& chat = request.contains("render") ? request.at("render") : request.at("chat");
  const auto messages = messages_of(chat.at("messages"));
  const bool prompt = chat.value("add_generation_prompt", false);
  if (request.contains("chat")) return {{"ids", encode_chat(tokenizer, messages, prompt)}};
  std::map<std::string, std::string> strings;
  if (tokenizer.bos()) strings["bos_token"] = tokenizer.id_to_token(*tokenizer.bos());
  if (tokenizer.eos()) strings["eos_token"] = tokenizer.id_to_token(*tokenizer.eos());
  return {{"text",
           ChatTemplate(tokenizer.chat_template().value_or("")).render(messages, prompt, strings)}};
}

int convert(const std::string& direction, const std::filesystem::path& from,
            const std::filesystem::path& to, const char* rows) {
  if (direction == "--to-hf") {
    std::filesystem::create_directories(to);
    write_hf_tokenizer(GgufFile::open(from), to);
    return 0;
  }
  std::vector<std::pair<std::string, GgufValue>> metadata = {
      {"general.architecture", GgufValue::string("llama")}};
  for (auto& entry : gguf_tokenizer_metadata(from, std::stoll(rows)))
    metadata.push_back(std::move(entry));
  GgufWriter(to, metadata, {}).finish();
  return 0;
}

int run(int argc, char** argv) {
  if (argc >= 4 && std::string(argv[1]).starts_with("--to-"))
    return convert(argv[1], argv[2], argv[3], argc > 4 ? argv[4] : "0");
  if (argc != 2)
    throw Error(ErrorKind::kUsage, "tokenizer_probe", "expected one argument: a tokenizer");
  const Tokenizer tokenizer = load(argv[1]);
  for (std::string line; std::getline(std::cin, line);) {
    Json reply;
    try {
      reply = answer(tokenizer, parse_json(line, "request"));
    } catch (const Error& error) {
      reply = {{"error", error.what()}, {"kind", error.exit_code()}};
    }
    std::cout << reply.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  try {
    return espalier::run(argc, argv);
  } catch (const espalier::Error& error) {
    std::cerr << error.to_string() << "\n";
    return error.exit_code();
  }
}
