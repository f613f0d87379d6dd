// Base64, for the normalizer table that tokenizer.json carries as text.
#pragma once

#include <string>
#include <string_view>

namespace espalier::text {

std::string base64_encode(std::string_view bytes);
/// Throws Error(kInput) on anything but standard, padded base64.
std::string base64_decode(std::string_view text);

}  // namespace espalier::text
