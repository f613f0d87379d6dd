// HellaSwag: WikiHow's and ActivityNet's markup is cleaned away as lm-eval does, in its order.
#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

/// re.sub(r"\[.*?\]", "", text): from a bracket to the next closing one in the same line.
std::string without_brackets(std::string_view text) {
  std::string out;
  std::size_t pos = 0;
  for (std::size_t open = text.find('['); open != std::string_view::npos;
       open = text.find('[', open)) {
    const std::size_t close = text.find_first_of("]\n", open);
    if (close == std::string_view::npos || text[close] == '\n') {
      ++open;
      continue;
    }
    out.append(text.substr(pos, open - pos));
    open = pos = close + 1;
  }
  return out.append(text.substr(pos));
}

std::string cleaned(std::string_view text) {
  const std::string titled = replace_all(python_strip(text), " [title]", ". ");
  return replace_all(without_brackets(titled), "  ", " ");
}

}  // namespace

Docs hellaswag(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    EvalDoc doc;
    doc.where = row.where();
    doc.context = cleaned(row.text("activity_label") + ": " + row.text("ctx_a") + " " +
                          python_capitalize(row.text("ctx_b")));
    for (const std::string& ending : row.texts("endings")) doc.choices.push_back(cleaned(ending));
    if (doc.choices.size() < 2) row.fail("endings", "holds fewer than two texts");
    doc.gold = row.index("label", doc.choices.size());
    doc.doc = with_fields(row.value(),
                          {table_field("query", doc.context), table_field("choices", doc.choices),
                           table_field("gold", doc.gold)});
    docs.push_back(std::move(doc));
  });
  return docs;
}

}  // namespace espalier::task_readers
