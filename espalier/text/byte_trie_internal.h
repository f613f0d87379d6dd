// A trie over bytes with an integer at each stored key; used for Unigram pieces and added tokens.
// Children of a node form a linked list except at the root, which is a table: small, and fast where
// it matters.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace espalier::text {

class ByteTrie {
 public:
  ByteTrie() { root_.fill(-1); }

  /// Keys must not be empty. A key stored twice keeps its last value when `overwrite`, else its
  /// first.
  void insert(std::string_view key, std::int32_t value, bool overwrite = true) {
    std::int32_t* link = &root_[static_cast<unsigned char>(key[0])];
    std::size_t depth = 0;
    std::int32_t current = -1;
    while (true) {
      const char byte = key[depth];
      current = *link;
      while (current >= 0 && nodes_[static_cast<std::size_t>(current)].byte != byte) {
        current = nodes_[static_cast<std::size_t>(current)].sibling;
      }
      if (current < 0) {
        current = static_cast<std::int32_t>(nodes_.size());
        const std::int32_t sibling = *link;
        *link = current;
        nodes_.push_back({byte, -1, sibling, -1});
      }
      if (++depth == key.size()) break;
      link = &nodes_[static_cast<std::size_t>(current)].child;
    }
    auto& node = nodes_[static_cast<std::size_t>(current)];
    if (overwrite || node.value < 0) node.value = value;
  }

  /// Calls found(length, value) for every key that `text` starts with, shortest first.
  template <class Found>
  void for_each_prefix(std::string_view text, Found&& found) const {
    if (text.empty()) return;
    std::int32_t current = root_[static_cast<unsigned char>(text[0])];
    for (std::size_t depth = 0; current >= 0;) {
      const Node& node = nodes_[static_cast<std::size_t>(current)];
      if (node.value >= 0) found(depth + 1, node.value);
      if (++depth == text.size()) return;
      current = node.child;
      while (current >= 0 && nodes_[static_cast<std::size_t>(current)].byte != text[depth]) {
        current = nodes_[static_cast<std::size_t>(current)].sibling;
      }
    }
  }

  bool starts_key(unsigned char byte) const { return root_[byte] >= 0; }
  bool empty() const { return nodes_.empty(); }

 private:
  struct Node {
    char byte;
    std::int32_t child;
    std::int32_t sibling;
    std::int32_t value;
  };
  std::array<std::int32_t, 256> root_;
  std::vector<Node> nodes_;
};

}  // namespace espalier::text
