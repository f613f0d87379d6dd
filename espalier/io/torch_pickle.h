// Files of torch.save (.pth, .pt, .th): the zip format and the older one, read without executing
// anything. Only dicts, lists and tuples of tensors and numbers are understood; whatever names
// another class or function is refused by that name.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

struct TorchPickle {
  /// Tensors under the dotted path of their keys: "state_dict.module.conv1.weight"; items of lists
  /// count from 0. On the CPU with the strides of the file; views of the mapped file where
  /// its alignment allows, so nothing may be written to them.
  std::map<std::string, at::Tensor, std::less<>> tensors;
  /// Paths of what is no tensor: "epoch", "optimizer.param_groups.0.lr".
  std::vector<std::string> ignored;
};

/// True when the file starts as one of torch.save does (zip, or a pickle).
bool is_torch_pickle(const std::filesystem::path& path);

/// Reads a file of torch.save, whatever device it was saved from.
///
/// Throws Error(kInput) naming the file and the place: a class or function that is no part of a
/// tensor (`os.system`: named, and nothing is run), damaged or cut off archives, tensors that reach
/// outside their storage or repeat it, storages of the wrong size, big-endian data, two tensors of
/// one path. Memory O(pickle) for the zip format; the older one does not align its tensors, so they
/// are copied.
TorchPickle load_torch_pickle(const std::filesystem::path& path);

}  // namespace espalier
