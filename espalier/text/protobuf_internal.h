// The protobuf wire format, read only, as far as SentencePiece model files need it. No schema, no
// allocation.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier::text {

/// Walks the fields of one message.
class ProtobufReader {
 public:
  ProtobufReader(std::string_view bytes, std::string_view source)
      : bytes_(bytes), source_(source) {}

  /// Moves to the next field; false at the end. Throws Error(kInput) on a malformed message.
  bool next() {
    if (pos_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    field_ = static_cast<std::uint32_t>(key >> 3);
    wire_ = static_cast<std::uint32_t>(key & 7);
    switch (wire_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        number_ = fixed(8);
        break;
      case 5:
        number_ = fixed(4);
        break;
      case 2: {
        const std::uint64_t size = varint();
        if (size > bytes_.size() - pos_) fail("a field is longer than the file");
        text_ = bytes_.substr(pos_, size);
        pos_ += size;
        break;
      }
      default:
        fail("an unknown wire type");
    }
    if (field_ == 0) fail("a field numbered 0");
    return true;
  }

  std::uint32_t field() const { return field_; }
  std::string_view text() const { return need(2), text_; }
  std::uint64_t number() const { return need(0), number_; }
  bool flag() const { return number() != 0; }
  std::int32_t int32() const { return static_cast<std::int32_t>(number()); }
  float real() const { return need(5), std::bit_cast<float>(static_cast<std::uint32_t>(number_)); }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorKind::kInput, source_,
                format("not a SentencePiece model: {} at byte {}", what, pos_));
  }
  void need(std::uint32_t wire) const {
    if (wire_ != wire) fail(format("field {} has wire type {}, expected {}", field_, wire_, wire));
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (pos_ == bytes_.size()) fail("the file ends inside a number");
      const auto byte = static_cast<unsigned char>(bytes_[pos_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number longer than 64 bits");
  }
  std::uint64_t fixed(std::size_t size) {
    if (size > bytes_.size() - pos_) fail("the file ends inside a number");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes_[pos_ + i])) << (8 * i);
    pos_ += size;
    return value;
  }

  std::string_view bytes_;
  std::string_view source_;
  std::size_t pos_ = 0;
  std::uint32_t field_ = 0;
  std::uint32_t wire_ = 0;
  std::uint64_t number_ = 0;
  std::string_view text_;
};

}  // namespace espalier::text
