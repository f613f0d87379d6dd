// Values: truth, equality, order and membership as in Python.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_value_internal.h"

namespace espalier::text::jinja {
namespace {

constexpr int kMaxDepth = 100;

int checked_depth(int depth) {
  if (depth > kMaxDepth)
    throw Error(ErrorKind::kInput, "chat template",
                format("values are nested deeper than {} levels", kMaxDepth));
  return depth;
}

}  // namespace

void type_error(std::string_view what) { throw Error(ErrorKind::kInput, "chat template", what); }

Value Value::list(std::vector<Value> items, bool is_tuple) {
  List out;
  for (const Value& item : items) out.depth = std::max(out.depth, item.depth() + 1);
  checked_depth(out.depth);
  out.items = std::move(items);
  out.is_tuple = is_tuple;
  return Value(std::make_shared<const List>(std::move(out)));
}

Value Value::dict(std::vector<std::pair<Value, Value>> entries) {
  Dict out;
  for (auto& [key, value] : entries) {
    if (key.is_list() || key.is_dict()) type_error(format("a {} cannot be a key", key.type_name()));
    out.depth = std::max(out.depth, value.depth() + 1);
    const auto known =
        std::find_if(out.entries.begin(), out.entries.end(),
                     [&key = key](const auto& entry) { return equal(entry.first, key); });
    if (known != out.entries.end()) {
      known->second = std::move(value);
    } else {
      out.entries.emplace_back(std::move(key), std::move(value));
    }
  }
  checked_depth(out.depth);
  return Value(std::make_shared<const Dict>(std::move(out)));
}

const Value* Dict::find(const Value& key) const {
  for (const auto& [name, value] : entries) {
    if (equal(name, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.is_text() && name.bytes() == key) return &value;
  }
  return nullptr;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_float()) return real() != 0;
  if (is_number()) return integer() != 0;
  if (is_text()) return !bytes().empty();
  if (is_list()) return !items().items.empty();
  if (is_dict()) return !entries().entries.empty();
  return true;
}

int Value::depth() const {
  if (is_list()) return items().depth;
  if (is_dict()) return entries().depth;
  if (is_loop()) return loop().items->depth + 1;
  if (is_callable()) return checked_depth(callable().self.depth() + 1);
  return 0;
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "None";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_text()) return "str";
  if (is_list()) return items().is_tuple ? "tuple" : "list";
  if (is_dict()) return "dict";
  if (is_namespace()) return "namespace";
  return is_loop() ? "loop" : "function";
}

bool equal(const Value& a, const Value& b) {
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.is_number() && b.is_number())
    return a.is_float() || b.is_float() ? a.real() == b.real() : a.integer() == b.integer();
  if (a.is_text() && b.is_text()) return a.bytes() == b.bytes();
  if (a.is_list() && b.is_list()) {
    const List& x = a.items();
    const List& y = b.items();
    return x.is_tuple == y.is_tuple &&
           std::equal(x.items.begin(), x.items.end(), y.items.begin(), y.items.end(), equal);
  }
  if (a.is_dict() && b.is_dict()) {
    const Dict& x = a.entries();
    const Dict& y = b.entries();
    return x.entries.size() == y.entries.size() &&
           std::all_of(x.entries.begin(), x.entries.end(), [&](const auto& entry) {
             const Value* other = y.find(entry.first);
             return other != nullptr && equal(entry.second, *other);
           });
  }
  if (a.is_namespace() && b.is_namespace()) return a.space() == b.space();
  return false;
}

int compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return a.real() < b.real() ? -1 : a.real() > b.real() ? 1 : 0;
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer() ? 1 : 0;
  }
  if (a.is_text() && b.is_text())
    return a.bytes().compare(b.bytes()) < 0 ? -1 : a.bytes() == b.bytes() ? 0 : 1;
  if (a.is_list() && b.is_list()) {
    const auto& x = a.items().items;
    const auto& y = b.items().items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i])) return compare(x[i], y[i]);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  type_error(format("{} and {} have no order", a.type_name(), b.type_name()));
}

bool contains(const Value& container, const Value& item) {
  if (container.is_text()) {
    if (!item.is_text())
      type_error(format("'in' wants a string on its left side, found {}", item.type_name()));
    return container.bytes().find(item.bytes()) != std::string::npos;
  }
  if (container.is_list()) {
    const auto& items = container.items().items;
    return std::any_of(items.begin(), items.end(),
                       [&](const Value& value) { return equal(value, item); });
  }
  if (container.is_dict()) return container.entries().find(item) != nullptr;
  if (container.is_undefined()) return false;
  type_error(format("'in' wants a container on its right side, found {}", container.type_name()));
}

}  // namespace espalier::text::jinja
