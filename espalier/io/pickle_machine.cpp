// See pickle_machine_internal.h. Source: CPython's pickletools.py, which documents every opcode.
#include <cstring>
#include <unordered_map>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/pickle_machine_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kMaxValues = 4'000'000, kMaxStack = 4'000'000;

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string_view source, PickleNameRule rule)
      : bytes_(bytes), source_(source), rule_(rule) {}

  PickleValues run() {
    if (bytes_.size() < 2 || byte() != 0x80) fail("does not start as a pickle of protocol 2 to 5");
    if (const std::uint8_t protocol = byte(); protocol < 2 || protocol > 5)
      fail(format("is a pickle of protocol {}; 2 to 5 can be read", protocol));
    while (step()) {
    }
    out_.root = pop();
    out_.end = at_;
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorKind::kInput, source_, format("{} (byte {} of the pickle)", what, start_))
        .hint(
            "this reader runs no code of a file; it reads dicts and lists of tensors as "
            "torch.save(model.state_dict(), ...) writes them");
  }

  // Bytes.
  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - at_)
      fail(format("a value of {} bytes reaches past the end", count));
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return part;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::uint8_t byte() { return number<std::uint8_t>(); }
  std::string_view text(std::uint64_t count) {
    const auto part = take(count);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  /// Up to a line feed, which is taken too.
  std::string_view line() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_,
                                bytes_.size() - at_);
    const std::size_t length = rest.find('\n');
    if (length == std::string_view::npos) fail("a name has no end");
    at_ += length + 1;
    return rest.substr(0, length);
  }

  // Values.
  PickleRef make(PickleKind kind, std::int64_t value = 0, std::string_view words = {},
                 std::vector<PickleRef> items = {}) {
    if (out_.values.size() >= kMaxValues) fail(format("holds more than {} values", kMaxValues));
    out_.values.push_back({kind, value, words, std::move(items)});
    return static_cast<PickleRef>(out_.values.size() - 1);
  }
  void push(PickleRef ref) {
    if (stack_.size() >= kMaxStack) fail(format("stacks more than {} values", kMaxStack));
    stack_.push_back(ref);
  }
  template <class... Args>
  void push_new(PickleKind kind, Args&&... args) {
    push(make(kind, std::forward<Args>(args)...));
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleRef top() {
    if (stack_.size() <= floor()) fail("takes a value where none is");
    return stack_.back();
  }
  PickleRef pop() {
    const PickleRef ref = top();
    stack_.pop_back();
    return ref;
  }
  /// Everything above the last mark, which goes too.
  std::vector<PickleRef> pop_marked() {
    if (marks_.empty()) fail("closes a group that was not opened");
    std::vector<PickleRef> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()),
                                 stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::size_t count) {
    std::vector<PickleRef> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_new(PickleKind::kTuple, 0, std::string_view(), std::move(items));
  }
  PickleValue& container(PickleKind kind, std::string_view what) {
    PickleValue& value = out_.values[top()];
    if (value.kind != kind) fail(format("adds {} to something else", what));
    return value;
  }
  void append(const std::vector<PickleRef>& items) {
    auto& list = container(PickleKind::kList, "list items").items;
    list.insert(list.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<PickleRef>& items) {
    if (items.size() % 2 != 0) fail("has a key without a value");
    auto& dict = container(PickleKind::kDict, "dict entries").items;
    dict.insert(dict.end(), items.begin(), items.end());
  }

  // Memo.
  void store(std::uint32_t index) {
    if (memo_.size() >= kMaxValues) fail(format("remembers more than {} values", kMaxValues));
    memo_[index] = top();
  }
  void recall(std::uint32_t index) {
    const auto it = memo_.find(index);
    if (it == memo_.end()) fail(format("asks for memo entry {}, which was never stored", index));
    push(it->second);
  }

  // Names and calls.
  void push_global(std::string_view module, std::string_view name) {
    const std::string full = format("{}.{}", module, name);
    if (rule_(full) == PickleName::kRefused)
      fail(format("wants `{}`, which is not allowed; nothing was run", shortened(full)));
    push_new(PickleKind::kGlobal, 0, *out_.names.insert(full).first);
  }
  static std::string shortened(const std::string& name) {
    return name.size() <= 100 ? name : name.substr(0, 97) + "...";
  }
  void call() {
    const PickleRef arguments = pop(), callee = pop();
    if (out_[callee].kind != PickleKind::kGlobal || out_[arguments].kind != PickleKind::kTuple)
      fail("calls something that has no name");
    switch (rule_(out_[callee].text)) {
      case PickleName::kRefused:
        fail(format("calls `{}`, which is not allowed; nothing was run", out_[callee].text));
      case PickleName::kHarmless:
        return push_new(PickleKind::kOther);
      case PickleName::kCall:
        return push_new(PickleKind::kCall, 0, std::string_view(),
                        std::vector<PickleRef>{callee, arguments});
      case PickleName::kOrderedDict:
        return push_new(PickleKind::kDict, 0, std::string_view(), pairs_of(arguments));
    }
  }
  /// Arguments of OrderedDict: none, or one list of pairs (Python 2).
  std::vector<PickleRef> pairs_of(PickleRef arguments) {
    std::vector<PickleRef> items;
    const auto& list = out_[arguments].items;
    if (list.empty()) return items;
    if (list.size() > 1 || out_[list[0]].kind != PickleKind::kList)
      fail("makes an OrderedDict of something that is no list");
    for (const PickleRef ref : out_[list[0]].items) {
      const PickleValue& pair = out_[ref];
      const bool fits = pair.kind == PickleKind::kList || pair.kind == PickleKind::kTuple;
      if (!fits || pair.items.size() != 2)
        fail("makes an OrderedDict of something else than pairs");
      items.insert(items.end(), pair.items.begin(), pair.items.end());
    }
    return items;
  }
  /// State of an object: attributes of an OrderedDict (`_metadata`) or of a harmless object.
  void build() {
    pop();
    const PickleKind kind = out_[top()].kind;
    if (kind != PickleKind::kDict && kind != PickleKind::kOther)
      fail("gives a state to something that has none");
  }

  void integer_of(std::span<const std::byte> little_endian) {
    if (little_endian.size() > sizeof(std::int64_t)) return push_new(PickleKind::kOther);
    std::int64_t value = 0;
    if (!little_endian.empty() && (std::to_integer<unsigned>(little_endian.back()) & 0x80) != 0)
      value = -1;
    std::memcpy(&value, little_endian.data(), little_endian.size());
    push_new(PickleKind::kInteger, value);
  }

  bool step();
  bool step_container(std::uint8_t opcode);

  std::span<const std::byte> bytes_;
  std::string_view source_;
  PickleNameRule rule_;
  std::size_t at_ = 0, start_ = 0;  // next byte; first byte of the opcode in progress
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint32_t, PickleRef> memo_;
  PickleValues out_;
};

/// Scalars, memo, names. False after STOP.
bool Machine::step() {
  start_ = at_;
  switch (const std::uint8_t opcode = byte(); opcode) {
    case '.':  // STOP
      return false;
    case 0x95:  // FRAME
      if (number<std::uint64_t>() > bytes_.size() - at_) fail("has a frame past the end");
      break;
    case 'N':  // NONE
      push_new(PickleKind::kNone);
      break;
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      push_new(PickleKind::kBool, opcode == 0x88 ? 1 : 0);
      break;
    case 'J':  // BININT
      push_new(PickleKind::kInteger, number<std::int32_t>());
      break;
    case 'K':  // BININT1
      push_new(PickleKind::kInteger, byte());
      break;
    case 'M':  // BININT2
      push_new(PickleKind::kInteger, number<std::uint16_t>());
      break;
    case 0x8a:  // LONG1
      integer_of(take(byte()));
      break;
    case 0x8b:  // LONG4
      integer_of(take(number<std::uint32_t>()));
      break;
    case 'G':  // BINFLOAT
      take(8);
      push_new(PickleKind::kOther);
      break;
    case 0x8c:  // SHORT_BINUNICODE
    case 'U':   // SHORT_BINSTRING
      push_new(PickleKind::kText, 0, text(byte()));
      break;
    case 'X':  // BINUNICODE
    case 'T':  // BINSTRING
      push_new(PickleKind::kText, 0, text(number<std::uint32_t>()));
      break;
    case 0x8d:  // BINUNICODE8
      push_new(PickleKind::kText, 0, text(number<std::uint64_t>()));
      break;
    case 'C':  // SHORT_BINBYTES
      take(byte());
      push_new(PickleKind::kOther);
      break;
    case 'B':  // BINBYTES
      take(number<std::uint32_t>());
      push_new(PickleKind::kOther);
      break;
    case 0x8e:  // BINBYTES8
      take(number<std::uint64_t>());
      push_new(PickleKind::kOther);
      break;
    case 'q':  // BINPUT
      store(byte());
      break;
    case 'r':  // LONG_BINPUT
      store(number<std::uint32_t>());
      break;
    case 0x94:  // MEMOIZE
      store(static_cast<std::uint32_t>(memo_.size()));
      break;
    case 'h':  // BINGET
      recall(byte());
      break;
    case 'j':  // LONG_BINGET
      recall(number<std::uint32_t>());
      break;
    case 'c': {  // GLOBAL
      const std::string_view module = line();
      push_global(module, line());
      break;
    }
    case 0x93: {  // STACK_GLOBAL
      const PickleRef name = pop(), module = pop();
      if (out_[name].kind != PickleKind::kText || out_[module].kind != PickleKind::kText)
        fail("names something by a value that is no text");
      push_global(out_[module].text, out_[name].text);
      break;
    }
    default:
      if (!step_container(opcode))
        fail(format("uses opcode 0x{:02x}, which is not allowed", opcode));
  }
  return true;
}

/// The stack and what is built on it. False for an opcode that is none of these.
bool Machine::step_container(std::uint8_t opcode) {
  switch (opcode) {
    case '(':  // MARK
      if (marks_.size() >= kMaxStack) fail("opens too many groups");
      marks_.push_back(stack_.size());
      break;
    case '0':  // POP
      pop();
      break;
    case '1':  // POP_MARK
      pop_marked();
      break;
    case '2':  // DUP
      push(top());
      break;
    case ')':   // EMPTY_TUPLE
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
      push_tuple(opcode == ')' ? 0 : opcode - 0x84u);
      break;
    case 't':  // TUPLE
      push_new(PickleKind::kTuple, 0, std::string_view(), pop_marked());
      break;
    case ']':  // EMPTY_LIST
      push_new(PickleKind::kList);
      break;
    case '}':  // EMPTY_DICT
      push_new(PickleKind::kDict);
      break;
    case 'a':  // APPEND
      append({pop()});
      break;
    case 'e':  // APPENDS
      append(pop_marked());
      break;
    case 's': {  // SETITEM
      const PickleRef value = pop(), key = pop();
      set_items({key, value});
      break;
    }
    case 'u':  // SETITEMS
      set_items(pop_marked());
      break;
    case 'R':  // REDUCE
      call();
      break;
    case 'b':  // BUILD
      build();
      break;
    case 'Q':  // BINPERSID
      push_new(PickleKind::kStorage, 0, std::string_view(), std::vector<PickleRef>{pop()});
      break;
    default:
      return false;
  }
  return true;
}

}  // namespace

PickleValues run_pickle(std::span<const std::byte> bytes, std::string_view source,
                        PickleNameRule rule) {
  return Machine(bytes, source, rule).run();
}

}  // namespace espalier
