// BLiMP: two whole sentences without a context; the grammatical one should be more probable.
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {

Docs blimp(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    EvalDoc doc;
    doc.where = row.where();
    doc.doc = row.value();
    doc.choices = {row.text("sentence_good"), row.text("sentence_bad")};
    docs.push_back(std::move(doc));
  });
  return docs;
}

}  // namespace espalier::task_readers
