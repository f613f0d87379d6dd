// ARC and OpenBookQA: choices with labels ("A".."E" or "1".."5") and an answer key. As AI2
// publishes them (question.stem, question.choices), as ARC's CSV (choices inside the question) and
// in the Hugging Face form (choices.text, choices.label).
#include <algorithm>
#include <utility>

#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

struct Question {
  std::string stem;
  std::vector<std::string> texts, labels;
};

void read_ai2_choices(const TaskRow& row, const TaskRow& question, Question& out) {
  const TableValue& choices = question.at("choices");
  if (choices.list() == nullptr) row.fail("question.choices", "is no list");
  for (const TableValue& choice : *choices.list()) {
    const TaskRow one(choice, row.where());
    out.texts.push_back(one.text("text"));
    out.labels.push_back(one.text("label"));
  }
}

void read_hub_choices(const TaskRow& row, Question& out) {
  const TaskRow choices(row.at("choices"), row.where());
  out.texts = choices.texts("text");
  out.labels = choices.texts("label");
  if (out.texts.size() != out.labels.size()) row.fail("choices", "has more labels than texts");
}

/// "What is? (A) one (B) two": the last run of labels in order, from (A) or (1).
Question split_inline_choices(const TaskRow& row) {
  const std::string& text = row.text("question");
  for (const char first : {'A', '1'}) {
    Question question;
    std::size_t open = text.rfind(std::string("(") + first + ")");
    if (open == std::string::npos) continue;
    question.stem = python_strip(std::string_view(text).substr(0, open));
    for (char label = first; open != std::string::npos; ++label) {
      const std::size_t begin = open + 3;
      open = text.find(std::string("(") + static_cast<char>(label + 1) + ")", begin);
      question.labels.emplace_back(1, label);
      question.texts.emplace_back(python_strip(std::string_view(text).substr(begin, open - begin)));
    }
    return question;
  }
  row.fail("question", "holds no choices such as \"(A) ... (B) ...\"");
}

void check_choices(const TaskRow& row, const Question& question) {
  if (question.texts.size() < 2) row.fail("choices", "holds fewer than two choices");
  for (std::size_t i = 0; i < question.texts.size(); ++i) {
    if (question.texts[i].empty()) row.fail("choices", "holds an empty choice");
    for (std::size_t j = 0; j < i; ++j) {
      if (question.labels[i] == question.labels[j]) row.fail("choices", "uses a label twice");
    }
  }
}

TableField choices_field(const Question& question) {
  TableValue::Fields both;
  both.push_back(table_field("text", question.texts));
  both.push_back(table_field("label", question.labels));
  return {"choices", {std::move(both)}};
}

EvalDoc make_doc(const TaskRow& row, Question question, std::string_view key,
                 std::string_view stem_name) {
  check_choices(row, question);
  EvalDoc doc;
  doc.where = row.where();
  doc.gold = row.index_of(key, question.labels);
  TableValue::Fields fields;
  if (row.find("id") != nullptr) fields.push_back({"id", *row.find("id")});
  if (row.find("questionID") != nullptr) fields.push_back({"id", *row.find("questionID")});
  fields.push_back(table_field(std::string(stem_name), question.stem));
  fields.push_back(choices_field(question));
  fields.push_back(table_field("answerKey", row.text(key)));
  doc.doc = {std::move(fields)};
  doc.choices = std::move(question.texts);
  return doc;
}

}  // namespace

Docs arc(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    Question question;
    std::string_view key = "answerKey";
    if (row.find("AnswerKey") != nullptr) {
      question = split_inline_choices(row);
      key = "AnswerKey";
    } else if (row.at("question").text() != nullptr) {
      question.stem = row.text("question");
      read_hub_choices(row, question);
    } else {
      const TaskRow inner(row.at("question"), row.where());
      question.stem = inner.text("stem");
      read_ai2_choices(row, inner, question);
    }
    std::string context = "Question: " + question.stem + "\nAnswer:";
    docs.push_back(make_doc(row, std::move(question), key, "question"));
    docs.back().context = std::move(context);
  });
  return docs;
}

Docs openbookqa(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    Question question;
    if (row.find("question_stem") != nullptr) {
      question.stem = row.text("question_stem");
      read_hub_choices(row, question);
    } else {
      const TaskRow inner(row.at("question"), row.where());
      question.stem = inner.text("stem");
      read_ai2_choices(row, inner, question);
    }
    std::string context = question.stem;
    docs.push_back(make_doc(row, std::move(question), "answerKey", "question_stem"));
    docs.back().context = std::move(context);
  });
  return docs;
}

}  // namespace espalier::task_readers
