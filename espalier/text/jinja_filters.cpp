// Filters and tests of Jinja, as far as chat templates use them.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/jinja_eval_internal.h"
#include "espalier/text/jinja_parser_internal.h"
#include "espalier/text/jinja_strings_internal.h"

namespace espalier::text::jinja {
namespace {

using Filter = std::function<Value(Evaluator&, const Value&, const Arguments&)>;
using Test = std::function<bool(Evaluator&, const Value&, const Arguments&)>;

Value text_value(MarkedText text) { return Value(std::move(text)); }

std::string text_of(const Value* value, std::string_view fallback) {
  return value == nullptr ? std::string(fallback) : to_text(*value).bytes;
}

std::int64_t integer_of(const Value* value, std::int64_t fallback) {
  if (value == nullptr || value->is_none()) return fallback;
  if (!value->is_int() && !value->is_bool())
    type_error(format("a filter wants an integer, found {}", value->type_name()));
  return value->integer();
}

Value length_of(const Value& value) {
  std::size_t size = 0;
  if (value.is_text())
    size = count_characters(value.bytes());
  else if (value.is_list())
    size = value.items().items.size();
  else if (value.is_dict())
    size = value.entries().entries.size();
  else if (!value.is_undefined())
    type_error(format("{} has no length", value.type_name()));
  return Value(static_cast<std::int64_t>(size));
}

/// "a.b.0": attributes and indices, as `attribute=` takes them.
Value path_of(Evaluator& evaluator, Value value, const Value& path) {
  if (path.is_int()) return evaluator.item(value, path);
  for (const MarkedText& part : split_text(MarkedText(to_text(path).bytes), ".", -1, false)) {
    const bool index = !part.bytes.empty() && part.bytes.size() < 10 &&
                       std::all_of(part.bytes.begin(), part.bytes.end(),
                                   [](char c) { return c >= '0' && c <= '9'; });
    value = evaluator.item(value,
                           index ? Value(static_cast<std::int64_t>(std::atoll(part.bytes.c_str())))
                                 : Value(part.bytes));
  }
  return value;
}

Value join(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  const Value* separator = arguments.get(0, "d");
  const Value* attribute = arguments.get(1, "attribute");
  const MarkedText between = separator != nullptr ? to_text(*separator) : MarkedText();
  MarkedText out;
  bool first = true;
  for (const Value& value : evaluator.elements(input)) {
    if (!first) out.append(between);
    first = false;
    const MarkedText part = to_text(attribute != nullptr && !attribute->is_none()
                                        ? path_of(evaluator, value, *attribute)
                                        : value);
    evaluator.spend(1 + part.marks.size(), part.bytes.size() + between.bytes.size());
    out.append(part);
  }
  return text_value(std::move(out));
}

Value default_filter(const Value& input, const Arguments& arguments) {
  const Value* fallback = arguments.get(0, "default_value");
  const Value* boolean = arguments.get(1, "boolean");
  const bool missing =
      input.is_undefined() || (boolean != nullptr && boolean->truth() && !input.truth());
  return !missing ? input : fallback != nullptr ? *fallback : Value("");
}

/// select, reject, selectattr, rejectattr.
Value choose(Evaluator& evaluator, const Value& input, const Arguments& arguments,
             bool by_attribute, bool keep) {
  const std::size_t skip = by_attribute ? 1 : 0;
  const Value* attribute = by_attribute ? arguments.get(0, "attribute") : nullptr;
  if (by_attribute && attribute == nullptr)
    type_error("selectattr and rejectattr want an attribute");
  const Value* test = arguments.get(skip, "");
  Arguments rest;
  for (std::size_t i = skip + 1; i < arguments.positional.size(); ++i)
    rest.positional.push_back(arguments.positional[i]);
  std::vector<Value> out;
  for (const Value& value : evaluator.elements(input)) {
    evaluator.spend(1);
    const Value subject = attribute != nullptr ? path_of(evaluator, value, *attribute) : value;
    const bool holds = test == nullptr ? subject.truth()
                                       : evaluator.apply_test(to_text(*test).bytes, subject, rest);
    if (holds == keep) out.push_back(value);
  }
  return Value::list(std::move(out));
}

Value map_filter(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  const Value* attribute = arguments.positional.empty() ? arguments.get(0, "attribute") : nullptr;
  const Value* fallback = arguments.positional.empty() ? arguments.get(1, "default") : nullptr;
  std::vector<Value> out;
  for (const Value& value : evaluator.elements(input)) {
    evaluator.spend(1);
    if (attribute != nullptr) {
      Value part = path_of(evaluator, value, *attribute);
      out.push_back(part.is_undefined() && fallback != nullptr ? *fallback : std::move(part));
    } else {
      if (arguments.positional.empty()) type_error("map wants attribute= or a filter's name");
      Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()},
                     arguments.named};
      out.push_back(evaluator.apply_filter(to_text(arguments.positional[0]).bytes, value, rest));
    }
  }
  return Value::list(std::move(out));
}

Value sort_filter(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  std::vector<Value> items = evaluator.elements(input);
  evaluator.spend(items.size() * 16);
  const Value* reverse = arguments.get(0, "reverse");
  const Value* case_sensitive = arguments.get(1, "case_sensitive");
  const Value* attribute = arguments.get(2, "attribute");
  const bool fold = case_sensitive == nullptr || !case_sensitive->truth();
  const bool descending = reverse != nullptr && reverse->truth();
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    Value key =
        attribute != nullptr && !attribute->is_none() ? path_of(evaluator, item, *attribute) : item;
    if (fold && key.is_text()) key = Value(change_case(key.text(), Case::kLower));
    keyed.emplace_back(std::move(key), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return descending ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
  });
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return Value::list(std::move(out));
}

Value dict_sort(Evaluator& evaluator, const Value& input) {
  if (!input.is_dict()) type_error(format("dictsort wants a dict, found {}", input.type_name()));
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.entries().entries)
    pairs.push_back(Value::list({key, value}, true));
  Arguments by_key;
  by_key.named = {{"attribute", Value(std::int64_t{0})}};
  return sort_filter(evaluator, Value::list(std::move(pairs)), by_key);
}

Value extreme(Evaluator& evaluator, const Value& input, bool largest) {
  const std::vector<Value> items = evaluator.elements(input);
  if (items.empty()) return Value(Undefined{"the extreme of nothing"});
  const auto less = [](const Value& a, const Value& b) { return compare(a, b) < 0; };
  return largest ? *std::max_element(items.begin(), items.end(), less)
                 : *std::min_element(items.begin(), items.end(), less);
}

Value to_integer(const Value& input, const Arguments& arguments) {
  if (input.is_float()) {
    if (std::isfinite(input.real()) && std::fabs(input.real()) < 9e18)
      return Value(static_cast<std::int64_t>(input.real()));
  } else if (input.is_number()) {
    return Value(input.integer());
  } else if (input.is_text()) {
    const std::string text = strip_text(input.text(), {}, true, true, true).bytes;
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (!text.empty() && *end == '\0' && errno == 0) return Value(static_cast<std::int64_t>(value));
    const double real = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && std::isfinite(real) && std::fabs(real) < 9e18)
      return Value(static_cast<std::int64_t>(real));
  }
  return Value(integer_of(arguments.get(0, "default"), 0));
}

Value to_real(const Value& input, const Arguments& arguments) {
  if (input.is_number()) return Value(input.real());
  if (input.is_text()) {
    const std::string text = strip_text(input.text(), {}, true, true, true).bytes;
    char* end = nullptr;
    const double real = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0') return Value(real);
  }
  const Value* fallback = arguments.get(0, "default");
  return fallback != nullptr && fallback->is_number() ? Value(fallback->real()) : Value(0.0);
}

Value reverse(Evaluator& evaluator, const Value& input) {
  std::vector<Value> items = evaluator.elements(input);
  std::reverse(items.begin(), items.end());
  if (!input.is_text()) return Value::list(std::move(items));
  MarkedText out;
  for (const Value& item : items) out.append(item.text());
  return text_value(std::move(out));
}

Value unique(Evaluator& evaluator, const Value& input) {
  std::vector<Value> out;
  for (const Value& item : evaluator.elements(input)) {
    evaluator.spend(1 + out.size() / 16);
    if (std::none_of(out.begin(), out.end(),
                     [&](const Value& known) { return equal(known, item); }))
      out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value indent(const Value& input, const Arguments& arguments) {
  const Value* width = arguments.get(0, "width");
  const Value* first = arguments.get(1, "first");
  const Value* blank = arguments.get(2, "blank");
  const std::int64_t spaces = width != nullptr && width->is_text()
                                  ? 0
                                  : std::clamp<std::int64_t>(integer_of(width, 4), 0, 1000);
  const std::string pad = width != nullptr && width->is_text()
                              ? width->bytes()
                              : std::string(static_cast<std::size_t>(spaces), ' ');
  MarkedText out;
  const auto lines = split_text(to_text(input), "\n", -1, false);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n");
    const bool wanted = i == 0 ? first != nullptr && first->truth()
                               : !lines[i].bytes.empty() || (blank != nullptr && blank->truth());
    if (wanted) out.append(pad);
    out.append(lines[i]);
  }
  return text_value(std::move(out));
}

Value sum(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  const Value* attribute = arguments.get(0, "attribute");
  double real = 0;
  std::int64_t whole = 0;
  bool is_real = false;
  for (const Value& item : evaluator.elements(input)) {
    const Value value =
        attribute != nullptr && !attribute->is_none() ? path_of(evaluator, item, *attribute) : item;
    if (!value.is_number()) type_error(format("sum wants numbers, found {}", value.type_name()));
    is_real |= value.is_float();
    real += value.real();
    if (!value.is_float() && __builtin_add_overflow(whole, value.integer(), &whole))
      type_error("integer overflow in sum");
  }
  return is_real ? Value(real) : Value(whole);
}

Value tojson(const Value& input, const Arguments& arguments) {
  for (const auto& [name, value] : arguments.named) {
    if (name != "indent" && name != "sort_keys" && name != "ensure_ascii") {
      throw Error(ErrorKind::kUnsupported, "chat template", format("tojson with '{}'", name));
    }
    if (name == "ensure_ascii" && value.truth())
      throw Error(ErrorKind::kUnsupported, "chat template", "tojson with ensure_ascii=true");
  }
  const Value* sort_keys = arguments.get(3, "sort_keys");
  const Value* width = arguments.get(1, "indent");
  const std::int64_t spaces = arguments.positional.empty()
                                  ? integer_of(width, -1)
                                  : integer_of(&arguments.positional[0], -1);
  return text_value(to_json(input, static_cast<int>(std::clamp<std::int64_t>(spaces, -1, 16)),
                            sort_keys != nullptr && sort_keys->truth()));
}

Value replace(const Value& input, const Arguments& arguments) {
  const Value* to = arguments.get(1, "new");
  if (arguments.get(0, "old") == nullptr || to == nullptr) type_error("replace wants two strings");
  return text_value(replace_text(to_text(input), to_text(*arguments.get(0, "old")).bytes,
                                 to_text(*to), integer_of(arguments.get(2, "count"), -1)));
}

Value trim(const Value& input, const Arguments& arguments) {
  const Value* chars = arguments.get(0, "chars");
  const bool blank = chars == nullptr || chars->is_none();
  return text_value(strip_text(to_text(input), blank ? "" : text_of(chars, ""), blank, true, true));
}

Value end_of(Evaluator& evaluator, const Value& input, bool first) {
  const std::vector<Value> items = evaluator.elements(input);
  if (items.empty())
    return Value(Undefined{first ? "the first of nothing" : "the last of nothing"});
  return first ? items.front() : items.back();
}

Value items_of(Evaluator& evaluator, const Value& input) {
  if (input.is_undefined()) return Value::list({});
  if (!input.is_dict()) type_error(format("items wants a dict, found {}", input.type_name()));
  return evaluator.call_method(input, "items", {});
}

const std::map<std::string, Filter, std::less<>>& filters() {
  static const std::map<std::string, Filter, std::less<>> table = [] {
    std::map<std::string, Filter, std::less<>> t;
    t["trim"] = [](Evaluator&, const Value& v, const Arguments& a) { return trim(v, a); };
    t["upper"] = [](Evaluator&, const Value& v, const Arguments&) {
      return text_value(change_case(to_text(v), Case::kUpper));
    };
    t["lower"] = [](Evaluator&, const Value& v, const Arguments&) {
      return text_value(change_case(to_text(v), Case::kLower));
    };
    t["title"] = [](Evaluator&, const Value& v, const Arguments&) {
      return text_value(change_case(to_text(v), Case::kTitle));
    };
    t["capitalize"] = [](Evaluator&, const Value& v, const Arguments&) {
      return text_value(change_case(to_text(v), Case::kCapital));
    };
    t["length"] =
        t["count"] = [](Evaluator&, const Value& v, const Arguments&) { return length_of(v); };
    t["join"] = join;
    t["tojson"] = [](Evaluator&, const Value& v, const Arguments& a) { return tojson(v, a); };
    t["default"] = t["d"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return default_filter(v, a);
    };
    t["first"] = [](Evaluator& e, const Value& v, const Arguments&) { return end_of(e, v, true); };
    t["last"] = [](Evaluator& e, const Value& v, const Arguments&) { return end_of(e, v, false); };
    t["replace"] = [](Evaluator&, const Value& v, const Arguments& a) { return replace(v, a); };
    t["list"] = [](Evaluator& e, const Value& v, const Arguments&) {
      return Value::list(e.elements(v));
    };
    t["select"] = [](Evaluator& e, const Value& v, const Arguments& a) {
      return choose(e, v, a, false, true);
    };
    t["reject"] = [](Evaluator& e, const Value& v, const Arguments& a) {
      return choose(e, v, a, false, false);
    };
    t["selectattr"] = [](Evaluator& e, const Value& v, const Arguments& a) {
      return choose(e, v, a, true, true);
    };
    t["rejectattr"] = [](Evaluator& e, const Value& v, const Arguments& a) {
      return choose(e, v, a, true, false);
    };
    t["map"] = map_filter;
    t["items"] = [](Evaluator& e, const Value& v, const Arguments&) { return items_of(e, v); };
    t["string"] = t["safe"] = [](Evaluator&, const Value& v, const Arguments&) {
      return text_value(to_text(v));
    };
    t["int"] = [](Evaluator&, const Value& v, const Arguments& a) { return to_integer(v, a); };
    t["float"] = [](Evaluator&, const Value& v, const Arguments& a) { return to_real(v, a); };
    t["abs"] = [](Evaluator&, const Value& v, const Arguments&) {
      if (!v.is_number()) type_error(format("abs wants a number, found {}", v.type_name()));
      if (v.is_float()) return Value(std::fabs(v.real()));
      if (v.integer() == INT64_MIN) type_error("integer overflow in abs");
      return Value(std::abs(v.integer()));
    };
    t["reverse"] = [](Evaluator& e, const Value& v, const Arguments&) { return reverse(e, v); };
    t["sort"] = sort_filter;
    t["dictsort"] = [](Evaluator& e, const Value& v, const Arguments&) { return dict_sort(e, v); };
    t["unique"] = [](Evaluator& e, const Value& v, const Arguments&) { return unique(e, v); };
    t["min"] = [](Evaluator& e, const Value& v, const Arguments&) { return extreme(e, v, false); };
    t["max"] = [](Evaluator& e, const Value& v, const Arguments&) { return extreme(e, v, true); };
    t["sum"] = sum;
    t["indent"] = [](Evaluator&, const Value& v, const Arguments& a) { return indent(v, a); };
    return t;
  }();
  return table;
}

const Value& other(const Arguments& arguments) {
  if (arguments.positional.empty()) type_error("the test wants an argument");
  return arguments.positional[0];
}

bool divides(const Value& value, const Value& by) {
  if (!value.is_number() || !by.is_number() || value.is_float() || by.is_float())
    type_error("the test wants integers");
  if (by.integer() == 0) type_error("division by zero");
  return by.integer() == -1 || value.integer() % by.integer() == 0;
}

const std::map<std::string, Test, std::less<>>& tests() {
  static const std::map<std::string, Test, std::less<>> table = [] {
    std::map<std::string, Test, std::less<>> t;
    t["defined"] = [](Evaluator&, const Value& v, const Arguments&) { return !v.is_undefined(); };
    t["undefined"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_undefined(); };
    t["none"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_none(); };
    t["string"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_text(); };
    t["mapping"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_dict(); };
    t["iterable"] = t["sequence"] = [](Evaluator&, const Value& v, const Arguments&) {
      return v.is_text() || v.is_list() || v.is_dict() || v.is_undefined();
    };
    t["number"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_number(); };
    t["integer"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_int(); };
    t["float"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_float(); };
    t["boolean"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_bool(); };
    t["true"] = [](Evaluator&, const Value& v, const Arguments&) {
      return v.is_bool() && v.truth();
    };
    t["false"] = [](Evaluator&, const Value& v, const Arguments&) {
      return v.is_bool() && !v.truth();
    };
    t["callable"] = [](Evaluator&, const Value& v, const Arguments&) { return v.is_callable(); };
    t["odd"] = [](Evaluator&, const Value& v, const Arguments&) {
      return !divides(v, Value(std::int64_t{2}));
    };
    t["even"] = [](Evaluator&, const Value& v, const Arguments&) {
      return divides(v, Value(std::int64_t{2}));
    };
    t["divisibleby"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return divides(v, other(a));
    };
    t["eq"] = t["equalto"] = t["sameas"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return equal(v, other(a));
    };
    t["ne"] = [](Evaluator&, const Value& v, const Arguments& a) { return !equal(v, other(a)); };
    t["lt"] = t["lessthan"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return compare(v, other(a)) < 0;
    };
    t["le"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return compare(v, other(a)) <= 0;
    };
    t["gt"] = t["greaterthan"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return compare(v, other(a)) > 0;
    };
    t["ge"] = [](Evaluator&, const Value& v, const Arguments& a) {
      return compare(v, other(a)) >= 0;
    };
    t["in"] = [](Evaluator&, const Value& v, const Arguments& a) { return contains(other(a), v); };
    t["lower"] = [](Evaluator&, const Value& v, const Arguments&) {
      return change_case(to_text(v), Case::kLower).bytes == to_text(v).bytes;
    };
    t["upper"] = [](Evaluator&, const Value& v, const Arguments&) {
      return change_case(to_text(v), Case::kUpper).bytes == to_text(v).bytes;
    };
    return t;
  }();
  return table;
}

}  // namespace

bool has_filter(std::string_view name) { return filters().contains(name); }
bool has_test(std::string_view name) { return tests().contains(name); }

Value Evaluator::apply_filter(std::string_view name, const Value& input,
                              const Arguments& arguments) {
  const auto found = filters().find(name);
  if (found == filters().end())
    throw Error(ErrorKind::kUnsupported, "chat template", format("the filter '{}'", name));
  if (input.is_text()) spend(input.text().marks.size(), input.bytes().size());
  Value out = found->second(*this, input, arguments);
  if (out.is_text()) spend(0, out.bytes().size());
  return out;
}

bool Evaluator::apply_test(std::string_view name, const Value& input, const Arguments& arguments) {
  const auto found = tests().find(name);
  if (found == tests().end())
    throw Error(ErrorKind::kUnsupported, "chat template", format("the test '{}'", name));
  return found->second(*this, input, arguments);
}

}  // namespace espalier::text::jinja
