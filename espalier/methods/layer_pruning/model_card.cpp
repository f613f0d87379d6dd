// Names, licences and tables of model cards.
#include "espalier/methods/layer_pruning/model_card.h"

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf.h"

namespace espalier::layer_pruning {

namespace fs = std::filesystem;

std::string model_name(const fs::path& source) {
  const fs::path clean = fs::absolute(source).lexically_normal();
  const fs::path last = (clean.has_filename() ? clean : clean.parent_path()).filename();
  return (last.extension() == ".gguf" ? last.stem() : last).string();
}

std::string source_licence(const fs::path& source) {
  std::error_code code;
  if (fs::is_regular_file(source, code))
    return GgufFile::open(source).get_string("general.license").value_or("");
  const fs::path card = source / "README.md";
  if (!fs::is_regular_file(card, code) || fs::file_size(card, code) > (1 << 20)) return "";
  const std::string text = read_file(card, 1 << 20);
  if (!text.starts_with("---\n")) return "";
  const std::string matter = text.substr(0, text.find("\n---", 4));
  const std::size_t at = matter.find("\nlicense:");
  if (at == std::string::npos) return "";
  const std::size_t begin = matter.find_first_not_of(" \t", at + 9);
  if (begin == std::string::npos || matter[begin] == '\n') return "";
  return matter.substr(begin, matter.find('\n', begin) - begin);
}

std::string card_front_matter(const fs::path& source) {
  const std::string licence = source_licence(source);
  std::string text = format("---\nbase_model: {}\n", model_name(source));
  if (!licence.empty()) text += format("license: {}\n", licence);
  return text +
         "library_name: transformers\npipeline_tag: text-generation\ntags:\n- espalier\n"
         "---\n\n";
}

std::string conversion_card(const fs::path& source, std::string_view type,
                            const std::string& command_line) {
  const std::string name = model_name(source);
  std::string card = card_front_matter(source);
  card += format(
      "# {} as a model folder\n\nThe weights of `{}`, written as {}; nothing was trained or "
      "removed.\n",
      name, source.filename().string(), type);
  if (!command_line.empty()) card += format("\n```\n{}\n```\n", command_line);
  if (source_licence(source).empty()) card += "\nThe licence is the source's.\n";
  return card;
}

std::string markdown_table(const std::vector<std::string>& columns,
                           const std::vector<std::vector<std::string>>& rows) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::string text = "|";
    for (const std::string& cell : cells) text += " " + cell + " |";
    return text + "\n";
  };
  std::string text = line(columns) + line(std::vector<std::string>(columns.size(), "---"));
  for (const auto& row : rows) text += line(row);
  return text;
}

}  // namespace espalier::layer_pruning
