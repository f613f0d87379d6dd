// From pickle values to tensors by path: what torch's rebuild functions would be called with.
// Source: torch/_utils.py and torch/serialization.py of torch 2.11 and 0.4.
#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/torch_pickle_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kMaxDepth = 100;

struct NamedStorage {
  std::string_view name;
  Dtype dtype;
};
constexpr std::array<NamedStorage, 10> kStorages{{{"torch.FloatStorage", Dtype::kF32},
                                                  {"torch.DoubleStorage", Dtype::kF64},
                                                  {"torch.HalfStorage", Dtype::kF16},
                                                  {"torch.BFloat16Storage", Dtype::kBF16},
                                                  {"torch.LongStorage", Dtype::kI64},
                                                  {"torch.IntStorage", Dtype::kI32},
                                                  {"torch.ShortStorage", Dtype::kI16},
                                                  {"torch.CharStorage", Dtype::kI8},
                                                  {"torch.ByteStorage", Dtype::kU8},
                                                  {"torch.BoolStorage", Dtype::kBool}}};
constexpr std::string_view kRebuildTensor = "torch._utils._rebuild_tensor",
                           kRebuildTensorV2 = "torch._utils._rebuild_tensor_v2",
                           kRebuildParameter = "torch._utils._rebuild_parameter";

std::optional<Dtype> storage_dtype(std::string_view name) {
  for (const NamedStorage& storage : kStorages)
    if (storage.name == name) return storage.dtype;
  return std::nullopt;
}

class Walker {
 public:
  Walker(const PickleValues& values, std::string_view source) : values_(values), source_(source) {
    // Shared containers are walked once per mention, so their number needs a bound of its own.
    left_ = 1000 + values.values.size() + values.end;
    name_bytes_left_ = (std::uint64_t{1} << 20) + 32 * values.end;
  }

  TorchObject walk() {
    visit(values_.root, "", 0);
    return std::move(object_);
  }

 private:
  [[noreturn]] void fail(const std::string& path, std::string_view what) const {
    throw Error(
        ErrorKind::kInput, source_,
        format("{} {}", path.empty() ? "its object" : "`" + path.substr(0, 200) + "`", what))
        .hint("load it with torch.load(..., weights_only=True) and save its state_dict() again");
  }

  void visit(PickleRef ref, const std::string& path, std::size_t depth) {
    if (depth > kMaxDepth) fail(path, format("is nested deeper than {}", kMaxDepth));
    if (left_-- == 0 || path.size() > name_bytes_left_)
      fail(path, "is one of too many values for a file of this size");
    name_bytes_left_ -= path.size();
    const PickleValue& value = values_[ref];
    switch (value.kind) {
      case PickleKind::kDict:
        for (std::size_t i = 0; i + 1 < value.items.size(); i += 2)
          visit(value.items[i + 1], joined(path, key_text(value.items[i], path)), depth + 1);
        return;
      case PickleKind::kList:
      case PickleKind::kTuple:
        for (std::size_t i = 0; i < value.items.size(); ++i)
          visit(value.items[i], joined(path, std::to_string(i)), depth + 1);
        return;
      case PickleKind::kCall:
        add_tensor(ref, path);
        return;
      case PickleKind::kStorage:
        fail(path, "is a storage without a tensor");
      case PickleKind::kNone:
      case PickleKind::kBool:
      case PickleKind::kInteger:
      case PickleKind::kText:
      case PickleKind::kOther:
      case PickleKind::kGlobal:
        object_.ignored.push_back(path);
        return;
    }
  }

  static std::string joined(const std::string& path, std::string_view key) {
    return path.empty() ? std::string(key) : format("{}.{}", path, key);
  }

  std::string key_text(PickleRef ref, const std::string& path) const {
    const PickleValue& key = values_[ref];
    if (key.kind == PickleKind::kText) return std::string(key.text);
    if (key.kind == PickleKind::kInteger || key.kind == PickleKind::kBool)
      return std::to_string(key.number);
    fail(path, "has a key that is neither text nor a number");
  }

  /// Peels _rebuild_parameter off; nullptr for a call that gives no tensor.
  const PickleValue& tensor_call(PickleRef ref, const std::string& path) const {
    for (int layer = 0; layer < 4; ++layer) {
      const PickleValue& value = values_[ref];
      if (value.kind != PickleKind::kCall) break;
      if (values_[value.items[0]].text != kRebuildParameter) return value;
      const auto& arguments = values_[value.items[1]].items;
      if (arguments.empty()) break;
      ref = arguments[0];
    }
    fail(path, "is a parameter that holds no tensor");
  }

  void add_tensor(PickleRef ref, const std::string& path) {
    const PickleValue& call = tensor_call(ref, path);
    const auto& arguments = values_[call.items[1]].items;
    const std::size_t needed = values_[call.items[0]].text == kRebuildTensor ? 4 : 6;
    if (arguments.size() < needed || arguments.size() > 7)
      fail(path, format("is a tensor with {} arguments, expected {}", arguments.size(), needed));
    TorchTensor tensor{path, add_storage(arguments[0], path), integer(arguments[1], path, "offset"),
                       integers(arguments[2], path, "shape"),
                       integers(arguments[3], path, "strides")};
    check_inside(tensor);
    if (!paths_.insert(path).second) fail(path, "is the path of two tensors");
    object_.tensors.push_back(std::move(tensor));
  }

  std::int64_t integer(PickleRef ref, const std::string& path, std::string_view what) const {
    const PickleValue& value = values_[ref];
    if (value.kind != PickleKind::kInteger || value.number < 0)
      fail(path, format("has a {} that is no number from 0 up", what));
    return value.number;
  }

  std::vector<std::int64_t> integers(PickleRef ref, const std::string& path,
                                     std::string_view what) const {
    const PickleValue& value = values_[ref];
    if (value.kind != PickleKind::kTuple && value.kind != PickleKind::kList)
      fail(path, format("has {} that are no tuple", what));
    if (value.items.size() > 64) fail(path, format("has {} dimensions", value.items.size()));
    std::vector<std::int64_t> numbers;
    for (const PickleRef item : value.items) numbers.push_back(integer(item, path, what));
    return numbers;
  }

  /// The persistent id ('storage', type, key, device, numel[, view]) -> its key.
  std::string add_storage(PickleRef ref, const std::string& path) {
    const PickleValue& storage = values_[ref];
    if (storage.kind != PickleKind::kStorage) fail(path, "is a tensor without a storage");
    const PickleValue& id = values_[storage.items[0]];
    if (id.kind != PickleKind::kTuple || id.items.size() < 5 ||
        values_[id.items[0]].text != "storage" || values_[id.items[2]].kind != PickleKind::kText)
      fail(path, "has a storage that is not described as torch does");
    const PickleValue& type = values_[id.items[1]];
    const std::optional<Dtype> dtype = storage_dtype(type.text);
    if (type.kind != PickleKind::kGlobal || !dtype)
      fail(path, "has a storage of a type that is not known");
    if (id.items.size() > 5 && values_[id.items[5]].kind != PickleKind::kNone)
      fail(path, "is a view of another storage, as torch before 0.4 wrote it");
    const TorchStorage found{*dtype, integer(id.items[4], path, "storage size")};
    std::string key(values_[id.items[2]].text);
    const auto [it, is_new] = object_.storages.emplace(key, found);
    if (!is_new && (it->second.dtype != found.dtype || it->second.numel != found.numel))
      fail(path, format("describes storage {} otherwise than an earlier tensor", key));
    return key;
  }

  void check_inside(const TorchTensor& tensor) const {
    const std::int64_t room = object_.storages.find(tensor.key)->second.numel;
    if (tensor.shape.size() != tensor.strides.size())
      fail(tensor.path,
           format("has {} dimensions but {} strides", tensor.shape.size(), tensor.strides.size()));
    std::int64_t numel = 1, last = tensor.offset;
    bool fits = true;
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
      const std::int64_t size = tensor.shape[i];
      std::int64_t reach = 0;
      fits =
          fits && !__builtin_mul_overflow(numel, size, &numel) &&
          !__builtin_mul_overflow(std::max<std::int64_t>(size - 1, 0), tensor.strides[i], &reach) &&
          !__builtin_add_overflow(last, reach, &last);
    }
    if (fits && numel == 0) return;
    if (!fits || last >= room)
      fail(tensor.path, format("reaches outside its storage of {} elements", room));
    if (numel > room)
      fail(tensor.path, format("repeats its storage: {} elements of {}", numel, room));
  }

  const PickleValues& values_;
  std::string_view source_;
  std::uint64_t left_ = 0, name_bytes_left_ = 0;
  std::set<std::string> paths_;
  TorchObject object_;
};

}  // namespace

PickleName torch_name_rule(std::string_view name) {
  if (name == "collections.OrderedDict") return PickleName::kOrderedDict;
  if (name == kRebuildTensor || name == kRebuildTensorV2 || name == kRebuildParameter)
    return PickleName::kCall;
  if (storage_dtype(name)) return PickleName::kHarmless;
  // Plain values beside the tensors, whose contents nobody reads.
  constexpr std::array<std::string_view, 16> kPlain{"torch.Size",
                                                    "torch.device",
                                                    "torch.float32",
                                                    "torch.float64",
                                                    "torch.float16",
                                                    "torch.bfloat16",
                                                    "torch.int64",
                                                    "torch.int32",
                                                    "torch.int16",
                                                    "torch.int8",
                                                    "torch.uint8",
                                                    "torch.bool",
                                                    "numpy.dtype",
                                                    "_codecs.encode",
                                                    "numpy.core.multiarray.scalar",
                                                    "numpy._core.multiarray.scalar"};
  for (const std::string_view plain : kPlain)
    if (plain == name) return PickleName::kHarmless;
  return PickleName::kRefused;
}

TorchObject describe_torch_object(const PickleValues& values, std::string_view source) {
  return Walker(values, source).walk();
}

}  // namespace espalier
