// TFRecord framing and the few protobuf fields that a scalar needs.
#include <array>
#include <bit>
#include <cstring>

#include "espalier/run/tensorboard_events_internal.h"

namespace espalier::run_internal {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}

/// TFRecord stores CRCs rotated and offset, because the CRC of data that holds its own CRC is a
/// constant.
std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

template <class Number>
void put_fixed(std::string& out, Number value) {  // little endian
  char bytes[sizeof(Number)];
  std::memcpy(bytes, &value, sizeof(Number));
  if constexpr (std::endian::native == std::endian::big) {
    for (std::size_t i = 0; i < sizeof(Number) / 2; ++i)
      std::swap(bytes[i], bytes[sizeof(Number) - 1 - i]);
  }
  out.append(bytes, sizeof(Number));
}

std::uint64_t get_fixed(std::string_view bytes, std::size_t at, int count) {
  std::uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

void put_varint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

enum Wire : unsigned { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

void put_key(std::string& out, unsigned field, Wire wire) { put_varint(out, field << 3 | wire); }

void put_bytes(std::string& out, unsigned field, std::string_view bytes) {
  put_key(out, field, kLength);
  put_varint(out, bytes.size());
  out += bytes;
}

std::optional<std::uint64_t> get_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (bytes.empty()) return std::nullopt;
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

/// Drops the value of a field of this wire type; false when the bytes end early.
bool skip_value(std::string_view& bytes, unsigned wire) {
  std::uint64_t size = 0;
  switch (wire) {
    case kVarint:
      return get_varint(bytes).has_value();
    case kFixed64:
      size = 8;
      break;
    case kFixed32:
      size = 4;
      break;
    case kLength: {
      const auto length = get_varint(bytes);
      if (!length) return false;
      size = *length;
      break;
    }
    default:
      return false;
  }
  if (size > bytes.size()) return false;
  bytes.remove_prefix(size);
  return true;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t crc = ~0u;
  for (const char byte : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

std::string tf_record(std::string_view bytes) {
  std::string record;
  record.reserve(bytes.size() + 16);
  put_fixed(record, static_cast<std::uint64_t>(bytes.size()));
  put_fixed(record, masked_crc(record));
  record += bytes;
  put_fixed(record, masked_crc(bytes));
  return record;
}

std::string event_header(double wall_time) {
  std::string event;
  put_key(event, 1, kFixed64);
  put_fixed(event, wall_time);
  put_bytes(event, 3, "brain.Event:2");
  return tf_record(event);
}

std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [tag, number] : values) {
    std::string value;
    put_bytes(value, 1, tag);
    put_key(value, 2, kFixed32);
    put_fixed(value, static_cast<float>(number));
    put_bytes(summary, 1, value);
  }
  std::string event;
  put_key(event, 1, kFixed64);
  put_fixed(event, wall_time);
  put_key(event, 2, kVarint);
  put_varint(event, static_cast<std::uint64_t>(step));
  put_bytes(event, 5, summary);
  return tf_record(event);
}

std::optional<std::int64_t> event_step(std::string_view event) {
  std::int64_t step = 0;
  while (!event.empty()) {
    const auto key = get_varint(event);
    if (!key) return std::nullopt;
    if (*key >> 3 == 2 && (*key & 7) == kVarint) {
      const auto value = get_varint(event);
      if (!value) return std::nullopt;
      step = static_cast<std::int64_t>(*value);
    } else if (!skip_value(event, static_cast<unsigned>(*key & 7))) {
      return std::nullopt;
    }
  }
  return step;
}

std::string keep_events_before(std::string_view file, std::int64_t first_dropped_step) {
  constexpr std::size_t kFraming = 16;
  std::string kept;
  while (file.size() >= kFraming) {
    const std::uint64_t size = get_fixed(file, 0, 8);
    if (size > file.size() - kFraming || masked_crc(file.substr(0, 8)) != get_fixed(file, 8, 4))
      break;
    const std::string_view event = file.substr(12, size);
    if (masked_crc(event) != get_fixed(file, 12 + size, 4)) break;
    const auto step = event_step(event);
    if (!step) break;
    const bool is_header = kept.empty();
    if (is_header || *step < first_dropped_step) kept += file.substr(0, size + kFraming);
    file.remove_prefix(size + kFraming);
  }
  return kept;
}

}  // namespace espalier::run_internal
