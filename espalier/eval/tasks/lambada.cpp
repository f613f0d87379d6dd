// LAMBADA: the last word of a passage, given the rest. "Word" is what stands behind the last
// space. As JSON Lines with `text`, or plain text with one passage a line.
#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

EvalDoc make_doc(const std::string& text, std::string where) {
  EvalDoc doc;
  doc.where = std::move(where);
  const std::size_t space = text.rfind(' ');
  if (space != std::string::npos) doc.context.assign(text, 0, space);
  doc.target.assign(1, ' ');
  doc.target.append(text, space == std::string::npos ? 0 : space + 1);
  return doc;
}

}  // namespace

Docs lambada(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  if (!files.empty() && !is_table_file(files.front())) {
    const std::string file = files.front().string();
    const std::string text = read_file(files.front(), 1u << 30);
    std::int64_t line_number = 0;
    for (std::size_t pos = 0; pos < text.size();) {
      const std::size_t end = std::min(text.find('\n', pos), text.size());
      std::string line = text.substr(pos, end - pos);
      pos = end + 1;
      ++line_number;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty()) continue;
      docs.push_back(make_doc(line, format("{}:{}", file, line_number)));
      docs.back().doc = {TableValue::Fields{table_field("text", line)}};
      if (static_cast<std::int64_t>(docs.size()) == limit) break;
    }
    if (docs.empty()) throw Error(ErrorKind::kInput, file, "holds no passages");
    return docs;
  }
  for_each_row(files, limit, [&](const TaskRow& row) {
    docs.push_back(make_doc(row.text("text"), row.where()));
    docs.back().doc = row.value();
  });
  return docs;
}

}  // namespace espalier::task_readers
