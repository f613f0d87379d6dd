// TensorBoard event files, scalars only, written without TensorFlow or protobuf. A file is a
// sequence of TFRecords:
//   uint64 length | uint32 masked CRC32C of length | bytes | uint32 masked CRC32C of bytes (little
//   endian)
// whose bytes are a protobuf Event {wall_time: 1 double, step: 2 int64, file_version: 3 string,
// summary: 5 Summary}, Summary {value: 1 repeated}, Value {tag: 1 string, simple_value: 2 float}.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace espalier::run_internal {

/// CRC-32C (Castagnoli) of the bytes: crc32c("123456789") is 0xe3069283.
std::uint32_t crc32c(std::string_view bytes);

/// One TFRecord around `bytes`.
std::string tf_record(std::string_view bytes);

/// The record that opens every event file.
std::string event_header(double wall_time);

/// One record with a scalar per value.
std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& values);

/// The step of a serialized Event (0 when absent); nothing when the bytes are not an Event.
std::optional<std::int64_t> event_step(std::string_view event);

/// The whole records of `file` whose step is below `first_dropped_step`, the header included. A
/// torn or damaged record ends the file, as it does for TensorBoard.
std::string keep_events_before(std::string_view file, std::int64_t first_dropped_step);

}  // namespace espalier::run_internal
