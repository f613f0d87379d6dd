// config.json of a CNN folder: strict reading with every problem at once, and writing.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/config.h"
#include "espalier/options/options.h"

namespace espalier {
namespace {

constexpr std::string_view kFormat = "espalier.cnn/1";
const std::vector<std::string> kKeys{"format", "arch",        "family",      "blocks",
                                     "kept",   "num_classes", "in_channels", "image_size",
                                     "mean",   "std",         "classes"};

std::string_view family_name(CnnFamily family) {
  switch (family) {
    case CnnFamily::kCifarResnet:
      return "cifar_resnet";
    case CnnFamily::kResnet:
      return "resnet";
    case CnnFamily::kVgg:
      return "vgg";
    case CnnFamily::kNatsCell:
      return "nats_cell";
  }
  return "";
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text.replace(57, std::string::npos, "...");
  return text;
}

class Reader {
 public:
  Reader(const Json& json, ProblemList& problems) : json_(json), problems_(problems) {}

  void check_keys() {
    for (const auto& [key, value] : json_.items()) {
      if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
      const std::string near = nearest(key, kKeys);
      problems_.add(format("`{}` is no key of a CNN{}", key,
                           near.empty() ? "" : format("; did you mean `{}`?", near)));
    }
    if (const Json* found = find("format"); found == nullptr || *found != kFormat)
      problems_.add(format("`format` is {}, expected \"{}\"",
                           found == nullptr ? "missing" : shown(*found), kFormat));
  }

  const Json* find(std::string_view key) const {
    const auto it = json_.find(key);
    return it == json_.end() ? nullptr : &*it;
  }

  std::string text(std::string_view key) {
    const Json* value = find(key);
    if (value != nullptr && value->is_string()) return value->get<std::string>();
    wrong(key, value, "a string");
    return {};
  }

  std::int64_t size(std::string_view key, std::int64_t fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (is_index(*value) && *value >= 1 && *value <= kMaxSize) return value->get<std::int64_t>();
    wrong(key, value, format("an integer in 1-{}", kMaxSize));
    return fallback;
  }

  /// nullopt when the key is absent or wrong; the latter is a problem.
  template <class T, class Fits>
  std::optional<std::vector<T>> list(std::string_view key, std::string_view what, Fits&& fits) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    return list_of<T>(std::string(key), *value, what, fits);
  }

  template <class T, class Fits>
  std::optional<std::vector<T>> list_of(const std::string& path, const Json& value,
                                        std::string_view what, Fits&& fits) {
    std::vector<T> out;
    if (!value.is_array()) {
      wrong(path, &value, format("a list of {}", what));
      return std::nullopt;
    }
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (!fits(value[i])) {
        wrong(format("{}[{}]", path, i), &value[i], what);
        return std::nullopt;
      }
      out.push_back(value[i].template get<T>());
    }
    return out;
  }

  void wrong(std::string_view path, const Json* found, std::string_view expected) {
    problems_.add(format("`{}` is {}, expected {}", path,
                         found == nullptr ? "missing" : shown(*found), expected));
  }

  static bool is_index(const Json& value) {
    return value.is_number_integer() && value >= 0 && value <= kMaxSize;
  }

 private:
  static constexpr std::int64_t kMaxSize = 1'000'000;
  const Json& json_;
  ProblemList& problems_;
};

/// Checks `stages` against the whole net; `config.stages` is the whole net's on the way in.
void read_stages(Reader& reader, CnnConfig& config, ProblemList& problems) {
  const std::vector<std::int64_t> whole = whole_lengths(config);
  const auto blocks = reader.list<std::int64_t>("blocks", "a count", Reader::is_index);
  std::vector<std::vector<std::int64_t>> stages;
  if (const Json* kept = reader.find("kept"); kept != nullptr) {
    if (!kept->is_array()) return reader.wrong("kept", kept, "a list of lists of layer indices");
    for (std::size_t s = 0; s < kept->size(); ++s) {
      auto stage = reader.list_of<std::int64_t>(format("kept[{}]", s), (*kept)[s], "a layer index",
                                                Reader::is_index);
      if (!stage) return;
      stages.push_back(*std::move(stage));
    }
  } else if (blocks) {
    for (std::size_t i = 0; i < blocks->size(); ++i) {
      stages.emplace_back(i < whole.size() ? std::min((*blocks)[i], whole[i] + 1) : 0);
      std::iota(stages.back().begin(), stages.back().end(), 0);
    }
  } else {
    return;  // the whole net
  }
  if (stages.size() != whole.size() || (blocks && blocks->size() != whole.size())) {
    problems.add(format("{} has {} stages, but `{}` lists {}", config.arch, whole.size(),
                        stages.size() != whole.size() ? "kept" : "blocks",
                        stages.size() != whole.size() ? stages.size() : blocks->size()));
    return;
  }
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const auto& stage = stages[s];
    const auto count = static_cast<std::int64_t>(stage.size());
    if (blocks && (*blocks)[s] > whole[s]) {
      problems.add(format("stage {} of {} has {} layers, but `blocks[{}]` is {}", s, config.arch,
                          whole[s], s, (*blocks)[s]));
      continue;
    }
    if (blocks && (*blocks)[s] != count)
      problems.add(
          format("`blocks[{}]` is {}, but `kept[{}]` lists {}", s, (*blocks)[s], s, count));
    if (stage.empty() && !may_be_empty(config, s))
      problems.add(
          format("stage {} of {} is empty, but it changes the number of channels", s, config.arch));
    for (std::size_t i = 0; i < stage.size(); ++i) {
      if (stage[i] >= whole[s]) {
        problems.add(format("stage {} of {} has layers 0-{}, but layer {} is kept", s, config.arch,
                            whole[s] - 1, stage[i]));
        break;
      }
      if (i > 0 && stage[i] <= stage[i - 1]) {
        problems.add(
            format("`kept[{}]` is not ascending: {} stands after {}", s, stage[i], stage[i - 1]));
        break;
      }
    }
  }
  if (config.family == CnnFamily::kNatsCell && stages != config.stages)
    problems.add("cells of a NATS net cannot be left out");
  config.stages = std::move(stages);
}

void read_images(Reader& reader, CnnConfig& config, ProblemList& problems) {
  config.in_channels = reader.size("in_channels", config.in_channels);
  config.image_size = reader.size("image_size", config.image_size);
  const auto number = [](const Json& v) { return v.is_number() && std::isfinite(v.get<double>()); };
  if (auto mean = reader.list<double>("mean", "a number", number)) config.mean = *std::move(mean);
  const auto positive = [&](const Json& v) { return number(v) && v.get<double>() > 0; };
  if (auto std = reader.list<double>("std", "a number above 0", positive))
    config.std = *std::move(std);
  for (const auto& [key, values] : {std::pair{"mean", &config.mean}, {"std", &config.std}}) {
    if (static_cast<std::int64_t>(values->size()) != config.in_channels)
      problems.add(format("`{}` has {} values, but the net has {} input channels", key,
                          values->size(), config.in_channels));
  }
  const auto name = [](const Json& v) { return v.is_string(); };
  if (auto classes = reader.list<std::string>("classes", "a name", name)) {
    config.classes = *std::move(classes);
    if (!config.classes.empty() &&
        static_cast<std::int64_t>(config.classes.size()) != config.num_classes)
      problems.add(format("`classes` has {} names, but num_classes is {}", config.classes.size(),
                          config.num_classes));
  }
}

}  // namespace

CnnConfig parse_cnn_config(std::string_view json, std::string_view source) {
  const Json root = parse_json(json, source);
  ProblemList problems(ErrorKind::kInput, std::string(source));
  if (!root.is_object()) {
    problems.add(format("is {}, expected an object", shown(root)));
    problems.throw_if_any();
  }
  Reader reader(root, problems);
  reader.check_keys();
  const std::string arch = reader.text("arch");
  const std::int64_t num_classes = reader.size("num_classes", 0);
  if (reader.find("num_classes") == nullptr) problems.add("`num_classes` is missing");
  CnnConfig config;
  try {
    if (!arch.empty()) config = cnn_config(arch, std::max<std::int64_t>(num_classes, 1));
  } catch (const Error& error) {
    problems.add(format("`arch`: {}{}", error.message(),
                        error.hint_text().empty() ? "" : "; " + error.hint_text()));
  }
  if (!config.arch.empty()) {
    if (const Json* family = reader.find("family");
        family != nullptr && *family != family_name(config.family))
      problems.add(format("`family` is {}, but {} is a {}", shown(*family), config.arch,
                          family_name(config.family)));
    read_stages(reader, config, problems);
    read_images(reader, config, problems);
  }
  problems.throw_if_any();
  return config;
}

std::string cnn_config_json(const CnnConfig& config) {
  Json counts = Json::array();
  for (const auto& stage : config.stages) counts.push_back(stage.size());
  return dump_json(Json{{"format", kFormat},
                        {"arch", config.arch},
                        {"family", family_name(config.family)},
                        {"blocks", counts},
                        {"kept", config.stages},
                        {"num_classes", config.num_classes},
                        {"in_channels", config.in_channels},
                        {"image_size", config.image_size},
                        {"mean", config.mean},
                        {"std", config.std},
                        {"classes", config.classes}});
}

bool is_cnn_folder(const std::filesystem::path& path) {
  try {
    const std::filesystem::path file = path / "config.json";
    if (!std::filesystem::is_regular_file(file)) return false;
    const Json json = read_json_file(file, 1u << 24);
    return json.is_object() && json.value("format", "") == kFormat;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace espalier
