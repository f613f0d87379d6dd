// Pieces of the README.md that every written model folder gets.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::layer_pruning {

/// The last component of a model's path, whatever slashes end it; a GGUF file without its ending.
std::string model_name(const std::filesystem::path& source);

/// "license: ..." of the source's own model card, or general.license of a GGUF file; "" when it
/// names none.
std::string source_licence(const std::filesystem::path& source);

/// The front matter that model hubs read: base_model, licence when known, tags.
std::string card_front_matter(const std::filesystem::path& source);

/// The card of a model that only changed its format.
std::string conversion_card(const std::filesystem::path& source, std::string_view type,
                            const std::string& command_line);

std::string markdown_table(const std::vector<std::string>& columns,
                           const std::vector<std::vector<std::string>>& rows);

}  // namespace espalier::layer_pruning
