// MMLU and CMMLU: four choices written into the prompt, the answer is a letter.
#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

const std::vector<std::string> kLetters{"A", "B", "C", "D"};

std::string prompt(std::string_view question, const std::vector<std::string>& choices,
                   std::string_view answer) {
  std::string text(python_strip(question));
  for (std::size_t i = 0; i < kLetters.size(); ++i)
    text.append("\n").append(kLetters[i]).append(". ").append(choices[i]);
  return text.append("\n").append(answer);
}

}  // namespace

Docs mmlu(const EvalTask& task, Files files, std::int64_t limit) {
  Docs docs;
  const auto read = [&](const TaskRow& row) {
    EvalDoc doc;
    doc.where = row.where();
    std::vector<std::string> choices;
    if (row.find("choices") != nullptr) {
      choices = row.texts("choices");
      if (choices.size() != kLetters.size()) row.fail("choices", "does not hold four texts");
      doc.gold = row.index("answer", kLetters.size());
    } else {
      for (const std::string& letter : kLetters) choices.push_back(row.text(letter));
      doc.gold = row.index_of("answer", kLetters);
    }
    doc.context = prompt(row.text("question"), choices, "Answer:");
    doc.choices = kLetters;
    TableValue::Fields fields;
    fields.push_back(table_field("question", row.text("question")));
    fields.push_back(table_field("subject", task.subject));
    fields.push_back(table_field("choices", choices));
    fields.push_back(table_field("answer", doc.gold));
    doc.doc = {std::move(fields)};
    docs.push_back(std::move(doc));
  };
  for_each_row(files, limit, read, {.columns = {"question", "A", "B", "C", "D", "answer"}});
  return docs;
}

Docs cmmlu(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    EvalDoc doc;
    doc.where = row.where();
    doc.doc = row.value();
    std::vector<std::string> choices;
    for (const std::string& letter : kLetters) choices.push_back(row.text(letter));
    doc.context = prompt(row.text("Question"), choices, "答案：");
    doc.choices = kLetters;
    doc.gold = row.index_of("Answer", kLetters);
    docs.push_back(std::move(doc));
  });
  return docs;
}

}  // namespace espalier::task_readers
