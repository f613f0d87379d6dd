// Attributes, items and methods of values: the part of Python's str, list and dict that templates
// use.
#include <algorithm>
#include <functional>
#include <map>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"
#include "espalier/text/jinja_strings_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text::jinja {
namespace {

std::string_view text_argument(const Arguments& arguments, std::size_t index, std::string_view name,
                               std::string_view method) {
  const Value* value = arguments.get(index, name);
  if (value == nullptr || !value->is_text()) {
    type_error(format("{}() wants a string, found {}", method,
                      value == nullptr ? "nothing" : value->type_name()));
  }
  return value->bytes();
}

std::int64_t integer_argument(const Arguments& arguments, std::size_t index, std::string_view name,
                              std::int64_t fallback) {
  const Value* value = arguments.get(index, name);
  if (value == nullptr) return fallback;
  if (!value->is_int())
    type_error(format("'{}' wants an integer, found {}", name, value->type_name()));
  return value->integer();
}

bool matches_end(const Value& self, const Arguments& arguments, bool start) {
  const Value* what = arguments.get(0, "");
  const auto hit = [&](const Value& part) {
    if (!part.is_text())
      type_error(format("startswith() and endswith() want strings, found {}", part.type_name()));
    return start ? self.bytes().starts_with(part.bytes()) : self.bytes().ends_with(part.bytes());
  };
  if (what == nullptr) type_error("startswith() and endswith() want a string");
  if (!what->is_list()) return hit(*what);
  return std::any_of(what->items().items.begin(), what->items().items.end(), hit);
}

Value strip(const Value& self, const Arguments& arguments, bool left, bool right) {
  const Value* chars = arguments.get(0, "chars");
  if (chars != nullptr && !chars->is_none() && !chars->is_text())
    type_error(format("strip() wants a string, found {}", chars->type_name()));
  return strip_text(self.text(),
                    chars != nullptr && chars->is_text() ? chars->bytes() : std::string_view(),
                    chars == nullptr || chars->is_none(), left, right);
}

Value split(Evaluator& evaluator, const Value& self, const Arguments& arguments, bool from_right) {
  const Value* separator = arguments.get(0, "sep");
  const std::int64_t limit = integer_argument(arguments, 1, "maxsplit", -1);
  const bool blank = separator == nullptr || separator->is_none();
  if (!blank && !separator->is_text())
    type_error(format("split() wants a string, found {}", separator->type_name()));
  if (!blank && separator->bytes().empty()) type_error("split() with an empty separator");
  auto parts =
      split_text(self.text(), blank ? std::string_view() : std::string_view(separator->bytes()),
                 limit, from_right);
  evaluator.spend(parts.size() * (1 + self.text().marks.size()), self.bytes().size());
  std::vector<Value> items;
  for (auto& part : parts) items.emplace_back(std::move(part));
  return Value::list(std::move(items));
}

/// Position in characters, as Python counts, or -1.
Value find_in(const Value& self, std::string_view what, bool last) {
  const std::size_t at = last ? self.bytes().rfind(what) : self.bytes().find(what);
  if (at == std::string::npos) return Value(std::int64_t{-1});
  return Value(
      static_cast<std::int64_t>(count_characters(std::string_view(self.bytes()).substr(0, at))));
}

std::int64_t count_in(std::string_view text, std::string_view what) {
  if (what.empty()) return static_cast<std::int64_t>(count_characters(text)) + 1;
  std::int64_t count = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos;
       at = text.find(what, at + what.size()))
    ++count;
  return count;
}

bool all_of(std::string_view text, bool (*accept)(char32_t)) {
  for (std::size_t i = 0; i < text.size(); i += utf8_length(static_cast<unsigned char>(text[i]))) {
    if (!accept(utf8_decode(text, i))) return false;
  }
  return !text.empty();
}

using Method = std::function<Value(Evaluator&, const Value&, const Arguments&)>;
using MethodTable = std::map<std::string, Method, std::less<>>;

const MethodTable& text_methods() {
  static const MethodTable table = {
      {"strip", [](Evaluator&, const Value& self,
                   const Arguments& a) { return strip(self, a, true, true); }},
      {"lstrip", [](Evaluator&, const Value& self,
                    const Arguments& a) { return strip(self, a, true, false); }},
      {"rstrip", [](Evaluator&, const Value& self,
                    const Arguments& a) { return strip(self, a, false, true); }},
      {"split", [](Evaluator& e, const Value& self,
                   const Arguments& a) { return split(e, self, a, false); }},
      {"rsplit",
       [](Evaluator& e, const Value& self, const Arguments& a) { return split(e, self, a, true); }},
      {"splitlines",
       [](Evaluator& e, const Value& self, const Arguments&) {
         std::vector<Value> lines;
         for (auto& line : split_lines(self.text())) lines.emplace_back(std::move(line));
         e.spend(lines.size() * (1 + self.text().marks.size()), self.bytes().size());
         return Value::list(std::move(lines));
       }},
      {"startswith", [](Evaluator&, const Value& self,
                        const Arguments& a) { return Value(matches_end(self, a, true)); }},
      {"endswith", [](Evaluator&, const Value& self,
                      const Arguments& a) { return Value(matches_end(self, a, false)); }},
      {"upper", [](Evaluator&, const Value& self,
                   const Arguments&) { return change_case(self.text(), Case::kUpper); }},
      {"lower", [](Evaluator&, const Value& self,
                   const Arguments&) { return change_case(self.text(), Case::kLower); }},
      {"title", [](Evaluator&, const Value& self,
                   const Arguments&) { return change_case(self.text(), Case::kTitle); }},
      {"capitalize", [](Evaluator&, const Value& self,
                        const Arguments&) { return change_case(self.text(), Case::kCapital); }},
      {"replace",
       [](Evaluator& e, const Value& self, const Arguments& a) {
         const Value* to = a.get(1, "new");
         if (to == nullptr || !to->is_text()) type_error("replace() wants two strings");
         MarkedText out = replace_text(self.text(), text_argument(a, 0, "old", "replace"),
                                       to->text(), integer_argument(a, 2, "count", -1));
         e.spend(out.marks.size(), out.bytes.size());
         return Value(std::move(out));
       }},
      {"find",
       [](Evaluator&, const Value& self, const Arguments& a) {
         return find_in(self, text_argument(a, 0, "sub", "find"), false);
       }},
      {"rfind",
       [](Evaluator&, const Value& self, const Arguments& a) {
         return find_in(self, text_argument(a, 0, "sub", "rfind"), true);
       }},
      {"count",
       [](Evaluator&, const Value& self, const Arguments& a) {
         return Value(count_in(self.bytes(), text_argument(a, 0, "sub", "count")));
       }},
      {"join",
       [](Evaluator& e, const Value& self, const Arguments& a) {
         return e.apply_filter("join", a.get(0, "iterable") ? *a.get(0, "iterable") : Value(),
                               {{self}, {}});
       }},
      {"isdigit", [](Evaluator&, const Value& self,
                     const Arguments&) { return Value(all_of(self.bytes(), is_numeric)); }},
      {"isspace", [](Evaluator&, const Value& self,
                     const Arguments&) { return Value(all_of(self.bytes(), is_whitespace)); }},
      {"removeprefix",
       [](Evaluator&, const Value& self, const Arguments& a) {
         const auto prefix = text_argument(a, 0, "prefix", "removeprefix");
         return self.bytes().starts_with(prefix)
                    ? Value(self.text().slice(prefix.size(), self.bytes().size()))
                    : self;
       }},
      {"removesuffix",
       [](Evaluator&, const Value& self, const Arguments& a) {
         const auto suffix = text_argument(a, 0, "suffix", "removesuffix");
         return self.bytes().ends_with(suffix)
                    ? Value(self.text().slice(0, self.bytes().size() - suffix.size()))
                    : self;
       }},
  };
  return table;
}

Value entries_as_list(const Value& self, bool keys, bool values) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.entries().entries) {
    out.push_back(keys && values ? Value::list({key, value}, true) : keys ? key : value);
  }
  return Value::list(std::move(out));
}

const MethodTable& dict_methods() {
  static const MethodTable table = {
      {"items", [](Evaluator&, const Value& self,
                   const Arguments&) { return entries_as_list(self, true, true); }},
      {"keys", [](Evaluator&, const Value& self,
                  const Arguments&) { return entries_as_list(self, true, false); }},
      {"values", [](Evaluator&, const Value& self,
                    const Arguments&) { return entries_as_list(self, false, true); }},
      {"get",
       [](Evaluator&, const Value& self, const Arguments& a) {
         const Value* key = a.get(0, "key");
         if (key == nullptr) type_error("get() wants a key");
         const Value* found = self.entries().find(*key);
         const Value* fallback = a.get(1, "default");
         return found != nullptr ? *found : fallback != nullptr ? *fallback : Value(nullptr);
       }},
      {"copy", [](Evaluator&, const Value& self, const Arguments&) { return self; }},
  };
  return table;
}

const MethodTable& list_methods() {
  static const MethodTable table = {
      {"index",
       [](Evaluator&, const Value& self, const Arguments& a) {
         const auto& items = self.items().items;
         for (std::size_t i = 0; i < items.size(); ++i) {
           if (a.get(0, "") != nullptr && equal(items[i], *a.get(0, "")))
             return Value(static_cast<std::int64_t>(i));
         }
         type_error("index() did not find the value");
       }},
      {"count",
       [](Evaluator&, const Value& self, const Arguments& a) {
         const auto& items = self.items().items;
         return Value(static_cast<std::int64_t>(std::count_if(
             items.begin(), items.end(),
             [&](const Value& v) { return a.get(0, "") != nullptr && equal(v, *a.get(0, "")); })));
       }},
  };
  return table;
}

const MethodTable* methods_of(const Value& value) {
  if (value.is_text()) return &text_methods();
  if (value.is_dict()) return &dict_methods();
  return value.is_list() ? &list_methods() : nullptr;
}

Value loop_attribute(const Value& value, std::string_view name) {
  const Loop& loop = value.loop();
  const std::vector<Value>& items = loop.items->items;
  const auto index = static_cast<std::int64_t>(loop.index);
  const auto size = static_cast<std::int64_t>(items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(size - index);
  if (name == "revindex0") return Value(size - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == size);
  if (name == "length") return Value(size);
  if (name == "previtem")
    return index > 0 ? items[loop.index - 1] : Value(Undefined{"loop.previtem"});
  if (name == "nextitem")
    return index + 1 < size ? items[loop.index + 1] : Value(Undefined{"loop.nextitem"});
  throw Error(ErrorKind::kUnsupported, "chat template", format("loop.{}", name));
}

/// Names that Python has and we do not: silence would make a template take the wrong branch.
void refuse_unknown_method(const Value& object, std::string_view name) {
  static constexpr std::string_view kPythonOnly[] = {
      "append",  "extend",  "insert",     "pop",      "remove",     "sort",      "reverse",
      "clear",   "update",  "setdefault", "format",   "encode",     "partition", "rpartition",
      "center",  "ljust",   "rjust",      "zfill",    "swapcase",   "isalpha",   "isalnum",
      "isupper", "islower", "istitle",    "casefold", "expandtabs", "translate"};
  if (std::find(std::begin(kPythonOnly), std::end(kPythonOnly), name) != std::end(kPythonOnly)) {
    throw Error(ErrorKind::kUnsupported, "chat template",
                format("the method {}.{}()", object.type_name(), name));
  }
}

}  // namespace

Value Evaluator::attribute(const Value& object, std::string_view name) {
  if (object.is_undefined())
    type_error(
        format("'{}' is undefined, so it has no attribute '{}'", object.undefined().name, name));
  if (object.is_loop()) return loop_attribute(object, name);
  if (object.is_namespace()) {
    for (const auto& [key, value] : object.space()->members) {
      if (key == name) return value;
    }
    return Value(Undefined{std::string(name)});
  }
  if (const MethodTable* methods = methods_of(object);
      methods != nullptr && methods->contains(name)) {
    Value method(std::make_shared<const Callable>(
        Callable{Callable::Kind::kMethod, std::string(name), nullptr, object}));
    method.depth();  // refuses chains that would be destroyed recursively
    return method;
  }
  if (object.is_dict()) {
    spend(object.entries().entries.size() / 16);
    if (const Value* found = object.entries().find(name)) return *found;
  } else if (methods_of(object) != nullptr) {
    refuse_unknown_method(object, name);
  }
  return Value(Undefined{std::string(name)});
}

Value Evaluator::item(const Value& object, const Value& key) {
  if (object.is_undefined())
    type_error(format("'{}' is undefined, so it has no items", object.undefined().name));
  if (object.is_dict()) {
    spend(object.entries().entries.size() / 16);
    if (const Value* found = object.entries().find(key)) return *found;
  }
  if (key.is_text()) return attribute(object, key.bytes());
  if (!key.is_int() || !(object.is_list() || object.is_text()))
    return Value(Undefined{to_repr(key).bytes});
  std::int64_t index = key.integer();
  if (object.is_list()) {
    const auto& items = object.items().items;
    if (index < 0) index += static_cast<std::int64_t>(items.size());
    const bool inside = index >= 0 && index < static_cast<std::int64_t>(items.size());
    return inside ? items[static_cast<std::size_t>(index)]
                  : Value(Undefined{format("item {}", key.integer())});
  }
  spend(0, object.bytes().size());
  const auto size = static_cast<std::int64_t>(count_characters(object.bytes()));
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value(Undefined{format("character {}", key.integer())});
  std::size_t at = 0;
  for (; index > 0; --index) at += utf8_length(static_cast<unsigned char>(object.bytes()[at]));
  return Value(
      object.text().slice(at, at + utf8_length(static_cast<unsigned char>(object.bytes()[at]))));
}

Value Evaluator::call_method(const Value& self, std::string_view name, const Arguments& arguments) {
  const MethodTable* methods = methods_of(self);
  if (methods == nullptr) type_error(format("{} has no methods", self.type_name()));
  spend(self.is_text() ? self.text().marks.size() : 0, self.is_text() ? self.bytes().size() : 0);
  return methods->find(name)->second(*this, self, arguments);
}

}  // namespace espalier::text::jinja
