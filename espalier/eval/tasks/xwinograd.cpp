// XWinograd. The Hugging Face form is WinoGrande's. The published table has, tab-separated:
// language, source, ?, sentence, its tokens, the pronoun with its range of tokens, the two
// candidates with theirs and which one is right. The gap is the pronoun; its place in the sentence
// is found by walking the tokens, since a pronoun may occur more than once.
#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

bool is_table(const std::filesystem::path& file) {
  return file.filename().string().find(".tsv") != std::string::npos;
}

Json parse_cell(const TaskRow& row, std::string_view field) {
  try {
    Json json = parse_json(row.text(field), field);
    if (json.is_array()) return json;
  } catch (const Error&) {
    row.fail(field, "is no JSON");
  }
  row.fail(field, "is no list");
}

/// Bytes [begin, end) of the tokens first..last in the sentence. The tokenizer of the authors wrote
/// `` and '' for a double quote.
std::pair<std::size_t, std::size_t> locate(const TaskRow& row, const std::string& sentence,
                                           const Json& tokens, std::size_t first,
                                           std::size_t last) {
  std::size_t pos = 0, begin = 0;
  for (std::size_t i = 0; i < last; ++i) {
    if (i >= tokens.size() || !tokens[i].is_string()) row.fail("tokens", "are fewer than named");
    std::string token = tokens[i].get<std::string>();
    pos = sentence.size() - python_lstrip(std::string_view(sentence).substr(pos)).size();
    if (sentence.compare(pos, token.size(), token) != 0 && (token == "``" || token == "''"))
      token.assign(1, '"');
    if (sentence.compare(pos, token.size(), token) != 0)
      row.fail("tokens", "do not spell the sentence: \"" + token + "\"");
    if (i == first) begin = pos;
    pos += token.size();
  }
  return {begin, pos};
}

EvalDoc from_table(const TaskRow& row) {
  const std::string& sentence = row.text("sentence");
  const Json tokens = parse_cell(row, "tokens"), pronoun = parse_cell(row, "pronoun"),
             candidates = parse_cell(row, "candidates");
  const auto is_range = [](const Json& range) {
    return range.is_array() && range.size() == 2 && range[0].is_number_unsigned() &&
           range[1].is_number_unsigned() && range[0] < range[1];
  };
  if (pronoun.size() < 2 || !is_range(pronoun[1])) row.fail("pronoun", "names no range of tokens");
  const auto [begin, end] = locate(row, sentence, tokens, pronoun[1][0].get<std::size_t>(),
                                   pronoun[1][1].get<std::size_t>());
  if (candidates.size() != 2) row.fail("candidates", "are not two");
  std::string options[2];
  std::int64_t right = -1;
  for (std::size_t i = 0; i < 2; ++i) {
    const Json& one = candidates[i];
    if (!one.is_array() || one.size() != 4 || !one[0].is_string() || !one[3].is_boolean())
      row.fail("candidates", "are not of the form [text, range, tokens, is right]");
    options[i] = one[0].get<std::string>();
    if (one[3].get<bool>()) right = right < 0 ? static_cast<std::int64_t>(i) : 2;
  }
  if (right != 0 && right != 1) row.fail("candidates", "do not have exactly one right one");

  EvalDoc doc;
  const std::string before = sentence.substr(0, begin);
  doc.choices = {before + options[0], before + options[1]};
  doc.target = python_strip(std::string_view(sentence).substr(end));
  doc.gold = right;
  TableValue::Fields fields;
  fields.push_back(table_field("sentence", before + "_" + sentence.substr(end)));
  fields.push_back(table_field("option1", options[0]));
  fields.push_back(table_field("option2", options[1]));
  fields.push_back(table_field("answer", std::to_string(right + 1)));
  doc.doc = {std::move(fields)};
  return doc;
}

}  // namespace

Docs xwinograd(const EvalTask& task, Files files, std::int64_t limit) {
  if (files.empty() || !is_table(files.front())) return winogrande(task, files, limit);
  Docs docs;
  const CsvOptions layout{
      {"language", "source", "mark", "sentence", "tokens", "pronoun", "candidates"}, '\t', false};
  for_each_row(
      files, 0,
      [&](const TaskRow& row) {
        if (row.text("language") != task.subject ||
            (limit > 0 && static_cast<std::int64_t>(docs.size()) == limit))
          return;
        EvalDoc doc = from_table(row);
        doc.where = row.where();
        if (doc.target.empty()) row.fail("sentence", "has nothing behind its pronoun");
        docs.push_back(std::move(doc));
      },
      layout);
  return docs;
}

}  // namespace espalier::task_readers
