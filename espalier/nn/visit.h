// Walking the tensors of plain-struct modules: every module lists its named members once, in
// `visit`.
#pragma once

#include <string>
#include <type_traits>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Calls fn(name, tensor&) for every defined tensor of a block or module, depth first, names joined
/// by dots.
template <class Module, class Fn>
void for_each_tensor(Module& module, const std::string& prefix, Fn&& fn) {
  module.visit([&](const char* name, auto& member) {
    const std::string full = prefix.empty() ? name : prefix + "." + name;
    if constexpr (std::is_same_v<std::decay_t<decltype(member)>, at::Tensor>) {
      if (member.defined()) fn(full, member);
    } else {
      for_each_tensor(member, full, fn);
    }
  });
}

}  // namespace espalier
