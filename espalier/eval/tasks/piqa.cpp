// PIQA: rows of goal, sol1, sol2; the labels lie in a second file, one a line, or in the rows.
#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

struct Labels {
  std::string file;
  std::vector<std::string> lines;
};

/// valid.jsonl has valid-labels.lst beside it, piqa_valid.jsonl piqa_valid_labels.lst.
Labels read_labels(const std::filesystem::path& rows) {
  std::filesystem::path stem = rows;
  while (stem.has_extension()) stem.replace_extension();
  for (const char* ending : {"-labels.lst", "_labels.lst"}) {
    const std::filesystem::path file = stem.string() + ending;
    if (!std::filesystem::exists(file)) continue;
    Labels labels{file.string(), {}};
    const std::string text = read_file(file, 64u << 20);
    for (std::size_t pos = 0; pos < text.size();) {
      const std::size_t end = std::min(text.find('\n', pos), text.size());
      std::string line = text.substr(pos, end - pos);
      while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
      labels.lines.push_back(std::move(line));
      pos = end + 1;
    }
    while (!labels.lines.empty() && labels.lines.back().empty()) labels.lines.pop_back();
    return labels;
  }
  return {};
}

std::int64_t label_of(const Labels& labels, std::size_t row) {
  if (row >= labels.lines.size()) {
    throw Error(ErrorKind::kInput, labels.file,
                format("ends after {} labels, but the rows go on", labels.lines.size()));
  }
  const std::string& line = labels.lines[row];
  if (line != "0" && line != "1") {
    throw Error(ErrorKind::kInput, format("{}:{}", labels.file, row + 1),
                format("label \"{}\" is neither 0 nor 1", line.substr(0, 40)));
  }
  return line == "1";
}

}  // namespace

Docs piqa(const EvalTask&, Files files, std::int64_t limit) {
  Docs docs;
  const Labels labels = files.empty() ? Labels{} : read_labels(files.front());
  for_each_row(files, limit, [&](const TaskRow& row) {
    EvalDoc doc;
    doc.where = row.where();
    doc.context = "Question: " + row.text("goal") + "\nAnswer:";
    doc.choices = {row.text("sol1"), row.text("sol2")};
    if (row.find("label") != nullptr) {
      doc.gold = row.index("label", 2);
      doc.doc = row.value();
    } else if (labels.file.empty()) {
      throw Error(ErrorKind::kInput, files.front().string(),
                  "has no labels: neither a field 'label' nor a file *-labels.lst beside it")
          .hint("the labels of PIQA's validation split are published as valid-labels.lst");
    } else {
      doc.gold = label_of(labels, docs.size());
      doc.doc = with_fields(row.value(), {table_field("label", doc.gold)});
    }
    docs.push_back(std::move(doc));
  });
  if (limit <= 0 && labels.lines.size() > docs.size()) {
    throw Error(ErrorKind::kInput, labels.file,
                format("holds {} labels for {} rows", labels.lines.size(), docs.size()));
  }
  return docs;
}

}  // namespace espalier::task_readers
