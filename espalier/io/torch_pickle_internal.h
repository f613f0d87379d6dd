// Parts of the reader of torch.save's files. Internal to io.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/io/pickle_machine_internal.h"
#include "espalier/io/torch_pickle.h"
#include "espalier/tensor/dtype.h"

namespace espalier {

/// A storage that the pickle speaks of: `key` names its bytes.
struct TorchStorage {
  Dtype dtype = Dtype::kF32;
  std::int64_t numel = 0;
};

/// A tensor that the pickle speaks of.
struct TorchTensor {
  std::string path;
  std::string key;  // of its storage
  std::int64_t offset = 0;
  std::vector<std::int64_t> shape, strides;
};

/// What a pickle of torch.save describes, before any bytes of tensors are looked at.
struct TorchObject {
  std::vector<TorchTensor> tensors;
  std::map<std::string, TorchStorage, std::less<>> storages;
  std::vector<std::string> ignored;
};

/// Which names a torch pickle may hold.
PickleName torch_name_rule(std::string_view name);

/// Walks the values of a pickle. Throws Error(kInput) for tensors and storages that are not
/// described as torch does, tensors outside their storage, nesting deeper than 100, repeated paths.
TorchObject describe_torch_object(const PickleValues& values, std::string_view source);

/// The whole reader on a file in memory; tensors view `bytes`, which `owner` keeps alive.
TorchPickle read_torch_pickle(std::span<const std::byte> bytes, std::string_view source,
                              const std::shared_ptr<const void>& owner);

}  // namespace espalier
