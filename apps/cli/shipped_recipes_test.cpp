// Every file under recipes/ is one that its verb takes, key by key.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "espalier/base/file.h"

#include "apps/cli/program.h"

namespace espalier::cli {
namespace {

namespace fs = std::filesystem;

/// "prune sweep" of the line "prune sweep:".
std::string verb_of(const fs::path& recipe) {
  std::ifstream file(recipe);
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#' && line.back() == ':')
      return line.substr(0, line.size() - 1);
  return "";
}

TEST(ShippedRecipes, AreTakenByTheirVerbs) {
  const fs::path folder = fs::path(ESPALIER_SOURCE_DIR) / "recipes";
  int count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".yaml") continue;
    ++count;
    std::string verb = verb_of(entry.path());
    std::vector<std::string> words;
    for (std::size_t at = 0; at != std::string::npos;) {
      const std::size_t end = verb.find(' ', at);
      words.push_back(verb.substr(at, end == std::string::npos ? end : end - at));
      at = end == std::string::npos ? end : end + 1;
    }
    words.insert(words.end(), {"--recipe", entry.path().string(), "--print-recipe"});
    testing::internal::CaptureStdout();
    EXPECT_EQ(run_program(words), 0) << entry.path();
    const std::string printed = testing::internal::GetCapturedStdout();
    // What the file says is in what is printed: a key that is not read would be missing.
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with("  ")) continue;
      const std::string key = line.substr(2, line.find(':') - 1);
      EXPECT_NE(printed.find(key), std::string::npos) << entry.path() << ": " << key;
    }
  }
  EXPECT_GE(count, 7);
}

}  // namespace
}  // namespace espalier::cli
