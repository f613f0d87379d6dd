// Reading a SentencePiece tokenizer.model (BPE or unigram) into the neutral description.
// The protobuf is read directly: ids must equal transformers' fast tokenizers, whose BPE ranks
// merges differently from the SentencePiece library itself where a piece can be built in several
// ways.
#include <algorithm>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/base64_internal.h"
#include "espalier/text/derive_merges_internal.h"
#include "espalier/text/protobuf_internal.h"
#include "espalier/text/tokenizer_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

enum class PieceType : std::uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

/// The fields of the model file that matter here, with the defaults of its schema.
struct Model {
  std::vector<std::string> pieces;
  std::vector<double> scores;
  std::vector<PieceType> types;
  std::int32_t model_type = 1;  // 1 unigram, 2 BPE, 3 word, 4 char
  bool byte_fallback = false;
  std::int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  std::string unk_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>", pad_piece = "<pad>";
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;
};

void read_piece(std::string_view bytes, std::string_view source, Model& model) {
  std::string piece;
  float score = 0;
  std::int32_t type = 1;
  for (ProtobufReader field(bytes, source); field.next();) {
    if (field.field() == 1) piece = field.text();
    if (field.field() == 2) score = field.real();
    if (field.field() == 3) type = field.int32();
  }
  const std::size_t id = model.pieces.size();
  if (!is_valid_utf8(piece))
    throw Error(ErrorKind::kInput, source, format("piece {} is not valid UTF-8", id));
  if (!std::isfinite(score))
    throw Error(ErrorKind::kInput, source, format("the score of piece {} is not finite", id));
  if (type < 1 || type > 6)
    throw Error(ErrorKind::kInput, source,
                format("piece {} has type {}, expected 1 to 6", id, type));
  model.pieces.push_back(std::move(piece));
  model.scores.push_back(static_cast<double>(score));
  model.types.push_back(static_cast<PieceType>(type));
}

void read_trainer(std::string_view bytes, std::string_view source, Model& model) {
  for (ProtobufReader field(bytes, source); field.next();) {
    switch (field.field()) {
      case 3:
        model.model_type = field.int32();
        break;
      case 24:
        model.whitespace_as_suffix = field.flag();
        break;
      case 35:
        model.byte_fallback = field.flag();
        break;
      case 40:
        model.unk_id = field.int32();
        break;
      case 41:
        model.bos_id = field.int32();
        break;
      case 42:
        model.eos_id = field.int32();
        break;
      case 43:
        model.pad_id = field.int32();
        break;
      case 45:
        model.unk_piece = field.text();
        break;
      case 46:
        model.bos_piece = field.text();
        break;
      case 47:
        model.eos_piece = field.text();
        break;
      case 48:
        model.pad_piece = field.text();
        break;
      default:
        break;
    }
  }
}

void read_normalizer(std::string_view bytes, std::string_view source, Model& model) {
  for (ProtobufReader field(bytes, source); field.next();) {
    switch (field.field()) {
      case 2:
        model.charsmap = field.text();
        break;
      case 3:
        model.add_dummy_prefix = field.flag();
        break;
      case 4:
        model.remove_extra_whitespaces = field.flag();
        break;
      case 5:
        model.escape_whitespaces = field.flag();
        break;
      default:
        break;
    }
  }
}

Model read_model(std::string_view bytes, std::string_view source) {
  Model model;
  for (ProtobufReader field(bytes, source); field.next();) {
    if (field.field() == 1) read_piece(field.text(), source, model);
    if (field.field() == 2) read_trainer(field.text(), source, model);
    if (field.field() == 3) read_normalizer(field.text(), source, model);
  }
  if (model.pieces.empty())
    throw Error(ErrorKind::kInput, source, "not a SentencePiece model: it holds no pieces");
  if (model.unk_id < 0 || static_cast<std::size_t>(model.unk_id) >= model.pieces.size()) {
    throw Error(ErrorKind::kInput, source,
                format("unk_id is {}, but there are {} pieces", model.unk_id, model.pieces.size()));
  }
  if (model.model_type != 1 && model.model_type != 2) {
    throw Error(
        ErrorKind::kUnsupported, source,
        format("model type {} is not one that we have: 1 (unigram), 2 (BPE)", model.model_type));
  }
  if (model.whitespace_as_suffix)
    throw Error(ErrorKind::kUnsupported, source, "treat_whitespace_as_suffix is set");
  return model;
}

constexpr const char* kMetaspace = "\xE2\x96\x81";

Json metaspace(const char* scheme) {
  return {{"type", "Metaspace"},
          {"replacement", kMetaspace},
          {"prepend_scheme", scheme},
          {"split", false}};
}

Json replace(const char* kind, const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

std::string quote_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view(R"(\.+*?()[]{}|^$#&-~)").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

/// The Llama kind: nothing is normalised, one "▁" in front of the text, merges ranked by id.
bool is_llama_kind(const Model& model) {
  return model.model_type == 2 && model.charsmap.empty() && !model.remove_extra_whitespaces &&
         model.add_dummy_prefix && model.escape_whitespaces;
}

Json general_normalizer(const Model& model) {
  Json steps = Json::array();
  if (!model.charsmap.empty())
    steps.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", base64_encode(model.charsmap)}});
  if (model.remove_extra_whitespaces) {
    steps.push_back(replace("Regex", R"(\A +| +\z)", ""));
    steps.push_back(replace("Regex", " {2,}", " "));
  }
  if (model.escape_whitespaces) steps.push_back(replace("String", " ", kMetaspace));
  // Metaspace would leave out its prefix where the text itself starts with one.
  if (model.add_dummy_prefix)
    steps.push_back(replace("Regex", "\\A\xE2\x96\x81", "\xE2\x96\x81\xE2\x96\x81"));
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

Json general_pre_tokenizer(const Model& model) {
  Json steps = Json::array();
  if (model.add_dummy_prefix) steps.push_back(metaspace("always"));
  std::vector<std::string> user_defined;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.types[id] == PieceType::kUserDefined && !model.pieces[id].empty())
      user_defined.push_back(model.pieces[id]);
  }
  std::stable_sort(user_defined.begin(), user_defined.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  std::string pattern;
  for (const auto& piece : user_defined)
    pattern += (pattern.empty() ? "" : "|") + quote_regex(piece);
  if (!pattern.empty())
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  return steps.empty() ? Json() : Json{{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json make_decoder(const Model& model) {
  Json steps = Json::array({replace("String", kMetaspace, " ")});
  if (model.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  if (model.byte_fallback || model.add_dummy_prefix) steps.push_back({{"type", "Fuse"}});
  if (model.add_dummy_prefix)
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

}  // namespace

TokenizerDescription read_sentencepiece(std::string_view bytes, std::string_view source,
                                        TokenizerContext& context) {
  Model model = read_model(bytes, source);
  const bool llama = is_llama_kind(model);
  TokenizerDescription d;
  d.source = source;
  d.vocabulary.reserve(model.pieces.size());
  bool has_user_defined = false;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    d.vocabulary.set(static_cast<TokenId>(id), model.pieces[id]);
    const bool user_defined = model.types[id] == PieceType::kUserDefined;
    has_user_defined |= user_defined;
    // Outside the Llama kind transformers leaves user-defined pieces to the pre-tokenizer below.
    if ((user_defined && llama) || model.types[id] == PieceType::kControl) {
      d.added.push_back(
          {.content = model.pieces[id], .special = !user_defined, .normalized = false});
    }
  }
  if (model.model_type == 2) {
    d.bpe = {.unk_token = model.pieces[static_cast<std::size_t>(model.unk_id)],
             .fuse_unk = true,
             .byte_fallback = model.byte_fallback,
             .ignore_merges = !llama && has_user_defined};
    const auto is_normal = [&](TokenId id) {
      return model.types[static_cast<std::size_t>(id)] == PieceType::kNormal;
    };
    d.merges = derive_merges(d.vocabulary, model.scores,
                             llama ? MergeOrder::kById : MergeOrder::kByScoreStrict, is_normal);
  } else {
    d.model = TokenizerDescription::Model::kUnigram;
    d.scores = std::move(model.scores);
    d.unk_id = model.unk_id;
    d.unigram_byte_fallback = model.byte_fallback;
  }
  d.normalizer = llama ? Json() : general_normalizer(model);
  d.pre_tokenizer = llama ? metaspace("first") : general_pre_tokenizer(model);
  d.decoder = make_decoder(model);
  const auto piece = [&](std::int32_t id) -> std::optional<std::string> {
    if (id < 0 || static_cast<std::size_t>(id) >= model.pieces.size()) return std::nullopt;
    return model.pieces[static_cast<std::size_t>(id)];
  };
  context.bos_token = piece(model.bos_id);
  context.eos_token = piece(model.eos_id);
  context.unk_token = piece(model.unk_id);
  context.pad_token = piece(model.pad_id);
  context.add_bos =
      llama &&
      context.bos_token.has_value();  // the Llama class adds BOS, others say so in their config
  context.add_eos = false;
  return d;
}

}  // namespace espalier::text
