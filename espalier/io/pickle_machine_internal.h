// A pickle machine that cannot execute anything: it knows the opcodes that state dicts are made of,
// builds plain values, and treats calls as data. Which names may be called is its caller's choice;
// any other name stops it. Internal to io.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// Index of a value in PickleValues: containers hold indices, so deep or circular structures need
/// no recursion to build or to destroy.
using PickleRef = std::uint32_t;

enum class PickleKind : std::uint8_t {
  kNone,
  kBool,     // number: 0 or 1
  kInteger,  // number; integers beyond 64 bits are kOther
  kText,     // text
  kOther,    // float, bytes, or a harmless object: no value is kept
  kTuple,    // items
  kList,     // items
  kDict,     // items: key, value, key, value, ...
  kGlobal,   // text: "torch._utils._rebuild_tensor_v2"
  kCall,     // items: the global, the argument tuple
  kStorage,  // items: the persistent id, a tuple
};

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  std::int64_t number = 0;
  std::string_view text;  // a view of the pickle, but for globals
  std::vector<PickleRef> items;
};

/// What a name in a pickle may be.
enum class PickleName : std::uint8_t {
  kRefused,
  kCall,         // becomes kCall when it is called
  kOrderedDict,  // becomes a kDict
  kHarmless,     // becomes kOther when it is called or just named
};
using PickleNameRule = PickleName (*)(std::string_view name);

struct PickleValues {
  std::vector<PickleValue> values;
  PickleRef root = 0;
  std::size_t end = 0;          // bytes of the pickle, its STOP included
  std::set<std::string> names;  // what the texts of kGlobal view

  const PickleValue& operator[](PickleRef ref) const { return values[ref]; }
};

/// Runs the pickle (protocol 2-5) at the start of `bytes`. Throws Error(kInput) naming `source` and
/// the byte for: a name that `rule` refuses (nothing has run), an opcode that state dicts do not
/// need, a stack that runs empty, lengths past the end, memo entries that were never stored, and
/// more than 4 million values. Time and memory O(bytes read).
PickleValues run_pickle(std::span<const std::byte> bytes, std::string_view source,
                        PickleNameRule rule);

}  // namespace espalier
