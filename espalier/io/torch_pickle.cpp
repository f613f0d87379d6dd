// See torch_pickle.h: the two containers around a pickle. Source: torch/serialization.py.
#include "espalier/io/torch_pickle.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <ATen/ops/as_strided.h>
#include <ATen/ops/ne.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/mapped_file.h"
#include "espalier/io/torch_pickle_internal.h"
#include "espalier/io/zip_directory_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

using Bytes = std::span<const std::byte>;
using StorageBytes = std::map<std::string, Bytes, std::less<>>;

/// LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c, in front of everything the older format writes.
constexpr std::array<unsigned char, 12> kMagic{0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                               0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

/// Protocols from 4 on put a frame of 9 bytes in front of the number.
bool looks_like_legacy(Bytes bytes) {
  for (const std::size_t at : {2u, 11u}) {
    if (bytes.size() > at + kMagic.size() && std::to_integer<int>(bytes[0]) == 0x80 &&
        std::memcmp(bytes.data() + at, kMagic.data(), kMagic.size()) == 0)
      return true;
  }
  return false;
}

bool looks_like_pickle(Bytes bytes) {
  return bytes.size() > 1 && std::to_integer<int>(bytes[0]) == 0x80;
}

[[noreturn]] void fail(std::string_view source, std::string_view what) {
  throw Error(ErrorKind::kInput, source, what)
      .hint("load it with torch.load(..., weights_only=True) and write it again with torch.save");
}

/// Tensors as views of their storages; a storage becomes a tensor once, so a copy that its
/// alignment asks for is made once.
TorchPickle tensors_of(TorchObject object, const StorageBytes& bytes,
                       const std::shared_ptr<const void>& owner) {
  std::map<std::string, at::Tensor, std::less<>> storages;
  for (const auto& [key, storage] : object.storages) {
    const bool flags = storage.dtype == Dtype::kBool;  // bytes other than 0 and 1 are no bool
    at::Tensor flat =
        view_bytes(bytes.at(key), flags ? Dtype::kU8 : storage.dtype, {storage.numel}, owner);
    storages.emplace(key, flags ? flat.ne(0) : flat);
  }
  TorchPickle result;
  for (TorchTensor& tensor : object.tensors) {
    result.tensors.emplace(
        std::move(tensor.path),
        at::as_strided(storages.at(tensor.key), tensor.shape, tensor.strides, tensor.offset));
  }
  result.ignored = std::move(object.ignored);
  return result;
}

/// Bytes of a storage; overflow and mismatch are told as the same mistake.
std::uint64_t storage_size(const TorchStorage& storage, const std::string& key,
                           std::string_view source) {
  std::int64_t size = 0;
  if (__builtin_mul_overflow(storage.numel, dtype_size(storage.dtype), &size))
    fail(source, format("storage {} of {} elements is too large", key, storage.numel));
  return static_cast<std::uint64_t>(size);
}

TorchPickle read_zip(Bytes bytes, std::string_view source,
                     const std::shared_ptr<const void>& owner) {
  std::map<std::string, Bytes, std::less<>> members;
  std::string prefix;  // of all members: the archive's name and a slash
  for (ZipMember& member : read_zip_directory(bytes, source)) {
    constexpr std::string_view kPickle = "/data.pkl";
    if (member.name.ends_with(kPickle)) {
      if (!prefix.empty()) fail(source, "holds two members called data.pkl");
      prefix = member.name.substr(0, member.name.size() - kPickle.size() + 1);
    }
    members.emplace(std::move(member.name), member.data);
  }
  if (prefix.empty()) fail(source, "is a zip file without data.pkl; torch.save did not write it");
  if (members.contains(prefix + "constants.pkl"))
    fail(source, "is a TorchScript archive, which holds a program and not only tensors");
  if (const auto order = members.find(prefix + "byteorder"); order != members.end()) {
    const auto& text = order->second;
    if (std::string_view(reinterpret_cast<const char*>(text.data()), text.size()) != "little")
      fail(source, "was written on a big-endian machine");
  }
  const std::string label = format("{}: {}data.pkl", source, prefix);
  TorchObject object = describe_torch_object(
      run_pickle(members.at(prefix + "data.pkl"), label, torch_name_rule), label);
  StorageBytes storages;
  for (const auto& [key, storage] : object.storages) {
    const auto member = members.find(prefix + "data/" + key);
    if (member == members.end()) fail(source, format("has no member {}data/{}", prefix, key));
    if (const std::uint64_t size = storage_size(storage, key, source);
        member->second.size() != size)
      fail(source, format("member {}data/{} has {} bytes, expected {}", prefix, key,
                          member->second.size(), size));
    storages.emplace(key, member->second);
  }
  return tensors_of(std::move(object), storages, owner);
}

/// One of the pickles that follow each other; `at` moves behind it.
PickleValues next_pickle(Bytes bytes, std::size_t& at, std::string_view source) {
  PickleValues values = run_pickle(bytes.subspan(at), source, torch_name_rule);
  at += values.end;
  return values;
}

void check_byte_order(const PickleValues& info, std::string_view source) {
  const PickleValue& dict = info[info.root];
  if (dict.kind != PickleKind::kDict) fail(source, "does not say how it was written");
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    if (info[dict.items[i]].text == "little_endian" && info[dict.items[i + 1]].number != 1)
      fail(source, "was written on a big-endian machine");
  }
}

/// Magic number, version, system, object, storage keys: five pickles; then each storage as a count
/// of 8 bytes and its bytes.
TorchPickle read_legacy(Bytes bytes, std::string_view source,
                        const std::shared_ptr<const void>& owner) {
  constexpr std::int64_t kVersion = 1001;
  std::size_t at = 0;
  next_pickle(bytes, at, source);
  const PickleValues version = next_pickle(bytes, at, source);
  if (version[version.root].number != kVersion)
    fail(source,
         format("has format version {}, expected {}", version[version.root].number, kVersion));
  check_byte_order(next_pickle(bytes, at, source), source);
  TorchObject object = describe_torch_object(next_pickle(bytes, at, source), source);
  const PickleValues keys = next_pickle(bytes, at, source);
  StorageBytes storages;
  for (const PickleRef ref : keys[keys.root].items) {
    const std::string key(keys[ref].text);
    const auto storage = object.storages.find(key);
    if (storage == object.storages.end() || storages.contains(key))
      fail(source, format("lists storage `{}`, which {}", key.substr(0, 100),
                          storages.contains(key) ? "came before" : "no tensor uses"));
    std::int64_t numel = 0;
    if (bytes.size() - at < sizeof(numel)) fail(source, format("ends before storage {}", key));
    std::memcpy(&numel, bytes.data() + at, sizeof(numel));
    at += sizeof(numel);
    const std::uint64_t size = storage_size(storage->second, key, source);
    if (numel != storage->second.numel)
      fail(source,
           format("storage {} has {} elements, expected {}", key, numel, storage->second.numel));
    if (size > bytes.size() - at)
      fail(source,
           format("ends inside storage {}: {} bytes are left of {}", key, bytes.size() - at, size));
    storages.emplace(key, bytes.subspan(at, size));
    at += size;
  }
  for (const auto& [key, storage] : object.storages)
    if (!storages.contains(key)) fail(source, format("does not hold storage {}", key));
  if (at != bytes.size()) fail(source, format("has {} bytes too many", bytes.size() - at));
  return tensors_of(std::move(object), storages, owner);
}

}  // namespace

TorchPickle read_torch_pickle(Bytes bytes, std::string_view source,
                              const std::shared_ptr<const void>& owner) {
  if (looks_like_zip(bytes)) return read_zip(bytes, source, owner);
  if (looks_like_legacy(bytes)) return read_legacy(bytes, source, owner);
  if (looks_like_pickle(bytes)) {
    // A plain pickle of Python: told by what it names, if it names anything.
    run_pickle(bytes, source, torch_name_rule);
    fail(source, "is a pickle, but torch.save did not write it: it holds no storages");
  }
  fail(source, "is no file of torch.save: neither its zip format nor the older one");
}

TorchPickle load_torch_pickle(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return read_torch_pickle(file->bytes(), path.string(), file);
}

bool is_torch_pickle(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path)) return false;
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return looks_like_zip(file->bytes()) || looks_like_pickle(file->bytes());
}

}  // namespace espalier
