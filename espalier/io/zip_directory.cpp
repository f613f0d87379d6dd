// See zip_directory_internal.h. Source: PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12, 4.3.14-16,
// 4.5.3.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/zip_directory_internal.h"

namespace espalier {
namespace {

constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50,
                        kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr std::uint64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56,
                        kLocatorSize = 20;
constexpr std::uint64_t kMaxComment = 65535;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the value stands in the zip64 field

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view source)
      : bytes_(bytes), source_(source) {}

  std::uint64_t size() const { return bytes_.size(); }

  template <class T>
  T number(std::uint64_t at) const {
    T value;
    std::memcpy(&value, part(at, sizeof(T), "a field").data(), sizeof(T));
    return value;
  }

  std::span<const std::byte> part(std::uint64_t at, std::uint64_t length,
                                  std::string_view what) const {
    if (at > bytes_.size() || length > bytes_.size() - at)
      fail(format("{} of {} bytes at byte {} reaches past the end ({} bytes)", what, length, at,
                  bytes_.size()));
    return bytes_.subspan(at, length);
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorKind::kInput, source_, format("is a damaged zip file: {}", what))
        .hint("download or save the file again");
  }

  [[noreturn]] void unsupported(std::string_view what) const {
    throw Error(ErrorKind::kInput, source_, what)
        .hint("load it with torch.load(..., weights_only=True) and write it again with torch.save");
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view source_;
};

struct Directory {
  std::uint64_t count = 0, size = 0, begin = 0;
};

/// The end record, found from the back past a comment.
std::uint64_t find_end(const Reader& file) {
  if (file.size() >= kEndSize) {
    const std::uint64_t last = file.size() - kEndSize;
    for (std::uint64_t back = 0; back <= std::min(last, kMaxComment); ++back) {
      if (file.number<std::uint32_t>(last - back) == kEnd &&
          file.number<std::uint16_t>(last - back + 20) == back)
        return last - back;
    }
  }
  file.fail("it has no end record; it was cut off");
}

Directory find_directory(const Reader& file) {
  const std::uint64_t end = find_end(file);
  Directory found{file.number<std::uint16_t>(end + 10), file.number<std::uint32_t>(end + 12),
                  file.number<std::uint32_t>(end + 16)};
  bool parts = file.number<std::uint16_t>(end + 4) != 0;
  if (end >= kLocatorSize && file.number<std::uint32_t>(end - kLocatorSize) == kLocator64) {
    const std::uint64_t end64 = file.number<std::uint64_t>(end - kLocatorSize + 8);
    file.part(end64, kEnd64Size, "the zip64 end record");
    if (file.number<std::uint32_t>(end64) != kEnd64) file.fail("its zip64 end record is not there");
    parts = file.number<std::uint32_t>(end64 + 16) != 0;
    found = {file.number<std::uint64_t>(end64 + 32), file.number<std::uint64_t>(end64 + 40),
             file.number<std::uint64_t>(end64 + 48)};
  }
  if (parts) file.unsupported("is one part of a zip file in several parts");
  file.part(found.begin, found.size, "the directory");
  if (found.count > found.size / kCentralSize)
    file.fail(format("{} members do not fit a directory of {} bytes", found.count, found.size));
  return found;
}

/// Replaces the values that stand in the zip64 field, in its fixed order.
void take_zip64(const Reader& file, std::uint64_t at, std::uint64_t length,
                const std::vector<std::uint64_t*>& values) {
  for (std::uint64_t used = 0; used + 4 <= length;) {
    const auto id = file.number<std::uint16_t>(at + used);
    const auto size = file.number<std::uint16_t>(at + used + 2);
    if (size > length - used - 4) file.fail("an extra field is longer than its room");
    if (id == 1) {
      std::uint64_t place = at + used + 4;
      for (std::uint64_t* value : values) {
        if (*value != kIn64) continue;
        if (place + 8 > at + used + 4 + size) file.fail("a zip64 field is too short");
        *value = file.number<std::uint64_t>(place);
        place += 8;
      }
      return;
    }
    used += 4 + std::uint64_t{size};
  }
}

std::string_view text_at(const Reader& file, std::uint64_t at, std::uint64_t length) {
  const auto bytes = file.part(at, length, "a name");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Reads the directory entry at `at` and moves behind it.
ZipMember read_member(const Reader& file, std::uint64_t& at, std::uint64_t directory_end) {
  if (at > directory_end || directory_end - at < kCentralSize ||
      file.number<std::uint32_t>(at) != kCentral)
    file.fail(format("its directory has no entry at byte {}", at));
  const auto flags = file.number<std::uint16_t>(at + 8),
             method = file.number<std::uint16_t>(at + 10);
  std::uint64_t packed = file.number<std::uint32_t>(at + 20),
                plain = file.number<std::uint32_t>(at + 24),
                local = file.number<std::uint32_t>(at + 42);
  const std::uint64_t name = file.number<std::uint16_t>(at + 28),
                      extra = file.number<std::uint16_t>(at + 30),
                      comment = file.number<std::uint16_t>(at + 32);
  const std::string_view label = text_at(file, at + kCentralSize, name);
  take_zip64(file, at + kCentralSize + name, extra, {&plain, &packed, &local});
  at += kCentralSize + name + extra + comment;
  if ((flags & 1) != 0) file.unsupported(format("its member {} is encrypted", label));
  if (method != 0 || packed != plain)
    file.unsupported(format("its member {} is compressed, which torch.save never does", label));
  file.part(local, kLocalSize, format("member {}", label));
  if (file.number<std::uint32_t>(local) != kLocal)
    file.fail(format("its member {} does not start at byte {}", label, local));
  const std::uint64_t data = local + kLocalSize + file.number<std::uint16_t>(local + 26) +
                             file.number<std::uint16_t>(local + 28);
  return {std::string(label), file.part(data, plain, format("member {}", label))};
}

}  // namespace

bool looks_like_zip(std::span<const std::byte> bytes) {
  std::uint32_t magic = 0;
  if (bytes.size() >= sizeof(magic)) std::memcpy(&magic, bytes.data(), sizeof(magic));
  return magic == kLocal || magic == kEnd;
}

std::vector<ZipMember> read_zip_directory(std::span<const std::byte> bytes,
                                          std::string_view source) {
  const Reader file(bytes, source);
  const Directory directory = find_directory(file);
  std::vector<ZipMember> members;
  std::uint64_t at = directory.begin;
  for (std::uint64_t i = 0; i < directory.count; ++i)
    members.push_back(read_member(file, at, directory.begin + directory.size));

  std::sort(members.begin(), members.end(),
            [](const ZipMember& a, const ZipMember& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < members.size(); ++i)
    if (members[i].name == members[i - 1].name)
      file.fail(format("it has two members called {}", members[i].name));
  std::stable_sort(members.begin(), members.end(), [](const ZipMember& a, const ZipMember& b) {
    return a.data.data() < b.data.data();
  });
  for (std::size_t i = 1; i < members.size(); ++i)
    if (members[i].data.data() < members[i - 1].data.data() + members[i - 1].data.size())
      file.fail(format("its members {} and {} lie over each other", members[i - 1].name,
                       members[i].name));
  return members;
}

}  // namespace espalier
