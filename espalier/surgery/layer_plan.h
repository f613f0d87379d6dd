// Which layers stay: parsing of layer sets, checks, and the plan that surgery applies to files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// "12-18,25" (both ends included) or "12:19" (half-open, as in Python) -> sorted, unique indices
/// below `num_layers`. Error(kUsage), naming the part and the valid range, for duplicates, empty or
/// reversed ranges, numbers out of range.
std::vector<std::int64_t> parse_layer_set(std::string_view text, std::int64_t num_layers,
                                          std::string_view flag);

/// The same, in the order written: for --keep, where an unsorted list is a mistake to be named
/// (check_kept).
std::vector<std::int64_t> parse_layer_list(std::string_view text, std::int64_t num_layers,
                                           std::string_view flag);

/// "12-18,25" from {12,...,18,25}.
std::string layer_set_text(const std::vector<std::int64_t>& layers);

std::vector<std::int64_t> complement(const std::vector<std::int64_t>& layers,
                                     std::int64_t num_layers);

/// Throws Error(kUsage), all problems at once, unless `kept` is a non-empty ascending list of
/// layers below `num_layers`.
void check_kept(const std::vector<std::int64_t>& kept, std::int64_t num_layers);

/// Throws Error(kUsage) when nothing or everything would go, or (without `force`) when block 0 or 1
/// is removed.
void check_removal(const std::vector<std::int64_t>& removed, std::int64_t num_layers, bool force);

}  // namespace espalier
