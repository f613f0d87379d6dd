// WinoGrande: a sentence with a gap `_`. Both options are put into the gap, and what follows the
// gap is scored after each.
#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {

Docs winogrande(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    EvalDoc doc;
    doc.where = row.where();
    doc.doc = row.value();
    const std::string& sentence = row.text("sentence");
    const std::size_t gap = sentence.find('_');
    if (gap == std::string::npos) row.fail("sentence", "has no gap \"_\"");
    const std::string before = sentence.substr(0, gap);
    doc.choices = {before + row.text("option1"), before + row.text("option2")};
    doc.target = python_strip(std::string_view(sentence).substr(gap + 1));
    if (doc.target.empty()) row.fail("sentence", "has nothing behind its gap \"_\"");
    const std::int64_t answer = row.integer("answer");
    if (answer != 1 && answer != 2)
      row.fail("answer", "is neither 1 nor 2; the test split is published without answers");
    doc.gold = answer - 1;
    docs.push_back(std::move(doc));
  });
  return docs;
}

}  // namespace espalier::task_readers
