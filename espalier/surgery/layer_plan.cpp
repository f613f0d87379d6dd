// Parsing and checking of layer sets.
#include "espalier/surgery/layer_plan.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::int64_t> parse_index(std::string_view text) {
  text = trimmed(text);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// One comma-separated part: an index, `a-b` with both ends, or half-open `a:b`.
void parse_part(std::string_view part, std::int64_t num_layers, ProblemList& problems,
                std::vector<std::int64_t>& layers) {
  // A leading minus belongs to the number, so that "-3" is out of range rather than half a range.
  const std::size_t separator = part.find_first_of("-:", 1);
  const bool half_open = separator != std::string_view::npos && part[separator] == ':';
  const auto first = parse_index(part.substr(0, separator));
  const auto last =
      separator == std::string_view::npos ? first : parse_index(part.substr(separator + 1));
  if (!first || !last) {
    problems.add(format(
        "`{}` is not a layer: write 5, 12-18 (both ends included) or 12:19 (end excluded)", part));
    return;
  }
  const std::int64_t end = half_open ? *last : *last == INT64_MAX ? INT64_MAX : *last + 1;
  if (separator != std::string_view::npos && *first >= end) {
    problems.add(format("`{}` is {}; the valid range is 0-{}", part,
                        *first == end ? "empty, since `a:b` excludes its end" : "reversed",
                        num_layers - 1));
    return;
  }
  if (*first < 0 || end > num_layers) {
    problems.add(format("`{}` is out of range; the model has {} layers, 0-{}", part, num_layers,
                        num_layers - 1));
    return;
  }
  for (std::int64_t layer = *first; layer < end; ++layer) layers.push_back(layer);
}

}  // namespace

std::vector<std::int64_t> parse_layer_list(std::string_view text, std::int64_t num_layers,
                                           std::string_view flag) {
  ProblemList problems(ErrorKind::kUsage, std::string(flag));
  std::vector<std::int64_t> layers;
  if (trimmed(text).empty()) {
    problems.add(
        format("names no layer; the model has {} layers, 0-{}", num_layers, num_layers - 1));
  } else {
    std::size_t begin = 0;
    while (begin <= text.size()) {
      const std::size_t comma = std::min(text.find(',', begin), text.size());
      const std::string_view part = trimmed(text.substr(begin, comma - begin));
      if (part.empty()) {
        problems.add(format("`{}` has an empty part between commas", text));
      } else {
        parse_part(part, num_layers, problems, layers);
      }
      begin = comma + 1;
    }
  }
  std::vector<std::int64_t> sorted = layers;
  std::sort(sorted.begin(), sorted.end());
  for (auto at = sorted.begin(); (at = std::adjacent_find(at, sorted.end())) != sorted.end();) {
    problems.add(format("layer {} is named more than once in `{}`", *at, text));
    at = std::upper_bound(at, sorted.end(), *at);
  }
  problems.throw_if_any(
      format("for example {} 12-18,25 (both ends of a range are included)", flag));
  return layers;
}

std::vector<std::int64_t> parse_layer_set(std::string_view text, std::int64_t num_layers,
                                          std::string_view flag) {
  std::vector<std::int64_t> layers = parse_layer_list(text, num_layers, flag);
  std::sort(layers.begin(), layers.end());
  return layers;
}

std::string layer_set_text(const std::vector<std::int64_t>& layers) {
  std::string text;
  for (std::size_t begin = 0; begin < layers.size();) {
    std::size_t end = begin + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += end - begin == 1 ? format("{}", layers[begin])
                             : format("{}-{}", layers[begin], layers[end - 1]);
    begin = end;
  }
  return text;
}

std::vector<std::int64_t> complement(const std::vector<std::int64_t>& layers,
                                     std::int64_t num_layers) {
  std::vector<std::int64_t> rest;
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    if (std::find(layers.begin(), layers.end(), layer) == layers.end()) rest.push_back(layer);
  }
  return rest;
}

void check_kept(const std::vector<std::int64_t>& kept, std::int64_t num_layers) {
  ProblemList problems(ErrorKind::kUsage, "kept layers");
  if (kept.empty())
    problems.add(format("the list is empty, but the model has {} layers", num_layers));
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] < 0 || kept[i] >= num_layers) {
      problems.add(format("layer {} is out of range", kept[i]));
    } else if (i > 0 && kept[i] == kept[i - 1]) {
      problems.add(format("layer {} is named more than once", kept[i]));
    } else if (i > 0 && kept[i] < kept[i - 1]) {
      problems.add(
          format("layer {} comes after layer {}; layers keep their order", kept[i], kept[i - 1]));
    }
  }
  if (!problems.empty())
    problems.add(format("given {}", kept.empty() ? "nothing" : layer_set_text(kept)));
  problems.throw_if_any(format("give ascending layers out of 0-{}", num_layers - 1));
}

void check_removal(const std::vector<std::int64_t>& removed, std::int64_t num_layers, bool force) {
  const auto count = static_cast<std::int64_t>(removed.size());
  if (count == 0) {
    throw Error(ErrorKind::kUsage, "layers to remove",
                format("none; between 1 and {} of the model's {} layers can be removed",
                       num_layers - 1, num_layers))
        .hint("name layers with --remove 12-18, or a number with --count 7 or --ratio 0.25");
  }
  if (count >= num_layers) {
    throw Error(
        ErrorKind::kUsage, "layers to remove",
        format("{} were given, but the model has {} and at least one must stay: remove 1 to {}",
               count, num_layers, num_layers - 1))
        .hint(format("remove fewer layers, for example --ratio 0.25 ({} layers)",
                     std::max<std::int64_t>(1, num_layers / 4)));
  }
  if (force) return;
  std::vector<std::int64_t> first;
  for (const std::int64_t layer : removed) {
    if (layer < 2) first.push_back(layer);
  }
  if (first.empty()) return;
  // Measured: leave-one-out on SmolLM2-135M-Instruct, 10 x 128 tokens of WikiText-2 valid
  // (docs/methods/layer_pruning.md).
  throw Error(
      ErrorKind::kUsage, "layers to remove",
      format("{} includes layer{} {}: the first two layers build the residual stream, and a "
             "decoder without them is "
             "broken (SmolLM2-135M: perplexity 37 becomes 97,000 without layer 0, 1,100 "
             "without layer 1)",
             layer_set_text(removed), first.size() == 1 ? "" : "s", layer_set_text(first)))
      .hint("leave layers 0 and 1 in, or pass --force to remove them all the same");
}

}  // namespace espalier
