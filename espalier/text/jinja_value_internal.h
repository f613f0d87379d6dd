// Values of the template language: those of Python that templates touch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "espalier/text/marked_text_internal.h"

namespace espalier::text::jinja {

class Value;
struct MacroNode;

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>>
      entries;  // in order of insertion; small, searched one by one
  int depth = 1;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

/// What `namespace()` makes: the only mutable value. Owned by the evaluator, because it may hold
/// itself.
struct Namespace {
  std::vector<std::pair<std::string, Value>> members;
};

/// The `loop` variable.
struct Loop {
  std::shared_ptr<const List> items;
  std::size_t index = 0;
};

/// Something that can be called: a global function, a macro, or a method bound to its object.
struct Callable;

struct Undefined {
  std::string name;  // for messages
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  Value(Undefined undefined) : data_(std::move(undefined)) {}
  Value(std::nullptr_t) : data_(None{}) {}
  Value(bool value) : data_(value) {}
  Value(std::int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(MarkedText text) : data_(std::make_shared<const MarkedText>(std::move(text))) {}
  Value(std::string text) : Value(MarkedText(std::move(text))) {}
  Value(const char* text) : Value(MarkedText(std::string(text))) {}
  Value(std::shared_ptr<const List> list) : data_(std::move(list)) {}
  Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}
  Value(Namespace* space) : data_(space) {}
  Value(std::shared_ptr<const Loop> loop) : data_(std::move(loop)) {}
  Value(std::shared_ptr<const Callable> callable) : data_(std::move(callable)) {}

  /// Containers nest to a limited depth (destroying them recurses): Error(kInput) beyond it.
  static Value list(std::vector<Value> items, bool is_tuple = false);
  static Value dict(std::vector<std::pair<Value, Value>> entries);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<std::int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_text() const { return std::holds_alternative<std::shared_ptr<const MarkedText>>(data_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<const List>>(data_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<const Dict>>(data_); }
  bool is_namespace() const { return std::holds_alternative<Namespace*>(data_); }
  bool is_loop() const { return std::holds_alternative<std::shared_ptr<const Loop>>(data_); }
  bool is_callable() const {
    return std::holds_alternative<std::shared_ptr<const Callable>>(data_);
  }

  const Undefined& undefined() const { return std::get<Undefined>(data_); }
  std::int64_t integer() const {
    return is_bool() ? std::get<bool>(data_) : std::get<std::int64_t>(data_);
  }
  double real() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
  }
  const MarkedText& text() const { return *std::get<std::shared_ptr<const MarkedText>>(data_); }
  const std::string& bytes() const { return text().bytes; }
  const List& items() const { return *std::get<std::shared_ptr<const List>>(data_); }
  std::shared_ptr<const List> shared_items() const {
    return std::get<std::shared_ptr<const List>>(data_);
  }
  const Dict& entries() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Namespace* space() const { return std::get<Namespace*>(data_); }
  const Loop& loop() const { return *std::get<std::shared_ptr<const Loop>>(data_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }

  bool truth() const;
  int depth() const;
  /// "str", "list", ... as Python names them.
  std::string_view type_name() const;

 private:
  struct None {};
  std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const MarkedText>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*,
               std::shared_ptr<const Loop>, std::shared_ptr<const Callable>>
      data_;
};

struct Callable {
  enum class Kind : std::uint8_t { kFunction, kMacro, kMethod };
  Kind kind = Kind::kFunction;
  std::string name;                  // of the function or method
  const MacroNode* macro = nullptr;  // lives in the parsed template
  Value self;                        // of a method
};

bool equal(const Value& a, const Value& b);
/// -1, 0, 1. Error(kInput) where Python would refuse to order.
int compare(const Value& a, const Value& b);
/// Python's `item in container`.
bool contains(const Value& container, const Value& item);

/// What `{{ value }}` prints: Python's str().
MarkedText to_text(const Value& value);
/// Python's repr().
MarkedText to_repr(const Value& value);
/// json.dumps(value, ensure_ascii=False, indent=indent); indent < 0 is one line.
MarkedText to_json(const Value& value, int indent, bool sort_keys);
std::string float_text(double value);

[[noreturn]] void type_error(std::string_view what);

}  // namespace espalier::text::jinja
