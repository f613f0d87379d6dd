// WikiText: one document a page. A raw file is cut before every heading of the first level; rows
// hold whole pages in `page`. The text that is scored is detokenised, words and bytes are counted
// on the page as published.
#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/eval/tasks/python_text.h"
#include "espalier/eval/tasks/task_readers.h"
#include "espalier/eval/tasks/task_rows.h"

namespace espalier::task_readers {
namespace {

/// re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text) for any pair of marks: what stands between them
/// loses its outer whitespace.
std::string tightened(std::string_view text, char open, char close) {
  std::string out;
  std::size_t pos = 0;
  for (;;) {
    const std::size_t begin = text.find(open, pos);
    const std::size_t end = begin == std::string_view::npos ? begin : text.find(close, begin + 1);
    if (end == std::string_view::npos) return out.append(text.substr(pos));
    out.append(text.substr(pos, begin + 1 - pos));
    out.append(python_strip(text.substr(begin + 1, end - begin - 1)));
    out += close;
    pos = end + 1;
  }
}

/// re.sub(r"/' [0-9]/", r"/'[0-9]/", text): lm-eval's slip, kept, since scores depend on it.
std::string slashed(std::string_view text) {
  std::string out;
  for (std::size_t pos = 0; pos < text.size();) {
    if (text.substr(pos).starts_with("/' ") && pos + 4 < text.size() && text[pos + 3] >= '0' &&
        text[pos + 3] <= '9' && text[pos + 4] == '/') {
      out += "/'[0-9]/";
      pos += 5;
    } else {
      out += text[pos++];
    }
  }
  return out;
}

std::string detokenised(std::string_view page) {
  std::string text = slashed(replace_all(page, "s '", "s'"));
  constexpr std::string_view kBefore[][2] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
                                             {" : ", ": "},  {" ; ", "; "},  {" . ", ". "},
                                             {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
  for (const auto& [from, to] : kBefore) text = replace_all(text, from, to);
  constexpr char kMarks[][2] = {{'(', ')'}, {'[', ']'}, {'{', '}'}, {'"', '"'}, {'\'', '\''}};
  for (const auto& [open, close] : kMarks) text = tightened(text, open, close);
  constexpr std::string_view kAfter[][2] = {
      {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \xC2\xB0 ", "\xC2\xB0"},
      {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
  for (const auto& [from, to] : kAfter) text = replace_all(text, from, to);
  return text;
}

EvalDoc make_doc(const std::string& page, std::string where) {
  EvalDoc doc;
  doc.where = std::move(where);
  doc.doc = {TableValue::Fields{table_field("page", page)}};
  doc.target = detokenised(page);
  doc.words = python_word_count(page);
  doc.bytes = static_cast<std::int64_t>(page.size());
  return doc;
}

bool is_title(std::string_view line) {
  const std::string marked = replace_all(replace_all(line, "= = =", "==="), "= =", "==");
  const std::string_view heading = python_strip(marked);
  return heading.starts_with("= ") && heading.ends_with(" =");
}

bool is_blank(std::string_view page) { return python_strip(page).empty(); }

Docs cut_pages(const std::filesystem::path& file, std::int64_t limit) {
  const std::string text = read_file(file, 1u << 30);
  Docs docs;
  std::size_t begin = 0, pos = 0;
  std::int64_t line = 1, begin_line = 1;
  const auto finish = [&](std::size_t end) {
    const std::string page = text.substr(begin, end - begin);
    if (!is_blank(page)) docs.push_back(make_doc(page, format("{}:{}", file.string(), begin_line)));
  };
  for (; pos <= text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', pos), text.size());
    // A line end between two pages belongs to neither.
    if (pos > begin && is_title(std::string_view(text).substr(pos, end - pos))) {
      finish(pos - 1);
      if (static_cast<std::int64_t>(docs.size()) == limit && limit > 0) return docs;
      begin = pos;
      begin_line = line;
    }
    pos = end + 1;
  }
  finish(text.size());
  if (docs.empty()) throw Error(ErrorKind::kInput, file.string(), "holds no text");
  return docs;
}

}  // namespace

Docs wikitext(const EvalTask&, Files files, std::int64_t limit) {
  if (!files.empty() && !is_table_file(files.front())) return cut_pages(files.front(), limit);
  Docs docs;
  for_each_row(files, limit, [&](const TaskRow& row) {
    if (row.find("page") == nullptr && row.find("text") != nullptr)
      row.fail("page",
               "is missing: rows of single lines (`text`) are not pages; take the raw file");
    docs.push_back(make_doc(row.text("page"), row.where()));
  });
  return docs;
}

}  // namespace espalier::task_readers
