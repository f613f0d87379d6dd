// See healing.h.
#include "apps/cli/healing.h"

#include "apps/cli/nested_verb.h"

namespace espalier::cli {

namespace fs = std::filesystem;

std::string heal_model(const fs::path& model, const fs::path& healed, const fs::path& recipe,
                       std::vector<std::string> words, const Context& outer) {
  words.insert(words.begin(),
               {model.string(), "--out", healed.string(), "--resume", "--overwrite"});
  std::string document = run_nested("finetune", recipe, words, outer);
  if (fs::exists(healed / "config.json")) return document;
  const fs::path adapter = healed.string() + ".adapter";
  fs::remove_all(adapter);
  fs::rename(healed, adapter);
  run_nested("merge-adapter", "",
             {model.string(), "--adapter", adapter.string(), "--out", healed.string()}, outer);
  fs::remove_all(adapter);
  return document;
}

}  // namespace espalier::cli
