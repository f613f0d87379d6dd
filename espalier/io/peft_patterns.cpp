// Which modules a PEFT configuration means. Its regular expressions are Python's; PCRE2 reads the
// constructs that module names call for the same way. A pattern is hostile input: matching is
// bounded.
#include <memory>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/peft_folder.h"

namespace espalier {
namespace {

constexpr std::size_t kMaxPattern = 16384;
constexpr std::uint32_t kMaxSteps = 1'000'000;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;

[[noreturn]] void throw_pattern(std::string_view pattern, int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  throw Error(ErrorKind::kInput, "adapter_config.json",
              format("the pattern \"{}\" cannot be used: {}", pattern.substr(0, 200),
                     reinterpret_cast<const char*>(text)));
}

PCRE2_SPTR code_units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

/// re.fullmatch(pattern, text) is not None.
bool full_match(std::string_view pattern, std::string_view text) {
  if (pattern.size() > kMaxPattern) {
    throw Error(ErrorKind::kInput, "adapter_config.json",
                format("a pattern of {} bytes, at most {} are taken", pattern.size(), kMaxPattern));
  }
  int code = 0;
  PCRE2_SIZE where = 0;
  const Code compiled(pcre2_compile(code_units(pattern), pattern.size(),
                                    PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &where, nullptr));
  if (!compiled) throw_pattern(pattern, code);
  const MatchData data(pcre2_match_data_create_from_pattern(compiled.get(), nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMaxSteps);
  pcre2_set_depth_limit(context.get(), 10'000);
  const int found =
      pcre2_match(compiled.get(), code_units(text), text.size(), 0, 0, data.get(), context.get());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) throw_pattern(pattern, found);
  return true;
}

/// "model.layers.12.mlp.up_proj" under the lists of layers `patterns` (empty: any that is not the
/// first part) -> 12; -1 when no number follows.
std::int64_t layer_number(std::string_view module, const std::vector<std::string>& patterns) {
  for (std::size_t begin = 0; begin < module.size();) {
    const std::size_t dot = module.find('.', begin);
    if (dot == std::string_view::npos) break;  // the number must be followed by more
    const std::string_view part = module.substr(begin, dot - begin);
    if (begin > 0 && !part.empty() && part.size() < 10 &&
        part.find_first_not_of("0123456789") == std::string_view::npos) {
      const std::string_view before = module.substr(0, begin - 1);
      bool wanted = patterns.empty() && before.find('.') != std::string_view::npos;
      for (const std::string& pattern : patterns)
        wanted = wanted || full_match("(?:.*\\.)?(?:" + pattern + ")", before);
      if (wanted) return std::stoll(std::string(part));
    }
    begin = dot + 1;
  }
  return -1;
}

}  // namespace

bool matches_module_suffix(std::string_view pattern, std::string_view text) {
  return full_match("(.*\\.)?(" + std::string(pattern) + ")", text);
}

bool ModulePattern::matches(std::string_view module) const {
  if (!regex.empty()) return full_match(regex, module);
  for (const std::string& name : names) {
    if (module == name || (module.size() > name.size() && module.ends_with(name) &&
                           module[module.size() - name.size() - 1] == '.'))
      return true;
  }
  return false;
}

bool PeftConfig::targets_module(std::string_view module, bool is_head) const {
  if (excluded.matches(module)) return false;
  for (const std::string& saved : modules_to_save) {
    if (full_match("(^|.*\\.)" + saved + "($|\\..*)", module)) return false;
  }
  if (all_linear) return !is_head;
  if (!targets.matches(module)) return false;
  if (layers.empty() || !targets.regex.empty()) return true;
  const std::int64_t layer = layer_number(module, layers_pattern);
  for (const std::int64_t wanted : layers) {
    if (wanted == layer) return true;
  }
  return false;
}

std::int64_t PeftConfig::rank_of(std::string_view module) const {
  for (const auto& [pattern, value] : rank_pattern) {
    if (matches_module_suffix(pattern, module)) return value;
  }
  return rank;
}

double PeftConfig::alpha_of(std::string_view module) const {
  for (const auto& [pattern, value] : alpha_pattern) {
    if (matches_module_suffix(pattern, module)) return value;
  }
  return alpha;
}

}  // namespace espalier
