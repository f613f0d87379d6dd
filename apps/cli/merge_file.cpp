// See merge_file.h.
#include "apps/cli/merge_file.h"

#include <charconv>
#include <optional>

#include <yaml-cpp/yaml.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"

namespace espalier::cli {
namespace {

namespace lp = layer_pruning;

constexpr std::uint64_t kLargestFile = 1u << 20;
constexpr std::size_t kMostSlices = 4096;

class MergeReader {
 public:
  explicit MergeReader(std::string file)
      : file_(std::move(file)), problems_(ErrorKind::kInput, file_) {}

  lp::MergeFile read(const std::string& text) {
    const YAML::Node root = parse(text);
    if (!root.IsMap()) {
      throw Error(ErrorKind::kInput, file_, "is not a merge file: a mapping is needed")
          .hint("slices: and merge_method: passthrough, as mergekit takes them");
    }
    for (const auto& entry : root) read_key(entry.first, entry.second);
    problems_.throw_if_any("see docs/methods/layer_pruning.md for the form");
    return std::move(merge_);
  }

 private:
  YAML::Node parse(const std::string& text) const {
    if (text.find('\0') != std::string::npos)
      throw Error(ErrorKind::kInput, file_, "holds a NUL byte, so it is not YAML text");
    try {
      return YAML::Load(text);
    } catch (const YAML::Exception& error) {
      throw Error(ErrorKind::kInput, error.mark.is_null() ? file_ : place(error.mark),
                  format("not valid YAML: {}", error.msg));
    }
  }

  std::string place(const YAML::Mark& mark) const {
    return format("{}:{}:{}", file_, mark.line + 1, mark.column + 1);
  }
  void add(const YAML::Node& node, std::string_view problem) {
    problems_.add(format("{}: {}", place(node.Mark()), problem));
  }

  void read_key(const YAML::Node& key, const YAML::Node& value) {
    const std::string name = key.IsScalar() ? key.Scalar() : std::string("?");
    if (name == "merge_method" && value.IsScalar()) {
      merge_.merge_method = value.Scalar();
    } else if (name == "slices") {
      read_slices(value);
    } else if (name == "parameters" && value.size() > 0) {
      refuse_parameters(value);
    } else if (name == "models") {
      add(key, "`models` merges whole models; a removal lists slices");
    } else {
      merge_.ignored.push_back(value.IsScalar() ? format("{}: {}", name, value.Scalar()) : name);
    }
  }

  [[noreturn]] void refuse_parameters(const YAML::Node& node) const {
    throw Error(ErrorKind::kUnsupported, place(node.Mark()),
                "parameters change weights; pruning copies the kept ones as they are")
        .hint("take the parameters out, or merge with mergekit");
  }

  void read_slices(const YAML::Node& slices) {
    if (!slices.IsSequence()) return add(slices, "slices is a list");
    if (slices.size() > kMostSlices)
      return add(slices, format("{} slices, at most {} are read", slices.size(), kMostSlices));
    for (const YAML::Node& slice : slices) {
      if (!slice.IsMap() || !slice["sources"] || !slice["sources"].IsSequence()) {
        add(slice, "a slice is a mapping with a list `sources`");
        continue;
      }
      if (slice["parameters"] && slice["parameters"].size() > 0)
        refuse_parameters(slice["parameters"]);
      std::vector<lp::MergeSource> parts;
      for (const YAML::Node& source : slice["sources"]) read_source(source, parts);
      merge_.slices.push_back(std::move(parts));
    }
  }

  void read_source(const YAML::Node& source, std::vector<lp::MergeSource>& parts) {
    if (!source.IsMap() || !source["model"] || !source["layer_range"])
      return add(source, "a source is a mapping with `model` and `layer_range`");
    if (source["parameters"] && source["parameters"].size() > 0)
      refuse_parameters(source["parameters"]);
    if (!source["model"].IsScalar())
      return add(source["model"], "model is a name; adapters and revisions are not read here");
    const YAML::Node range = source["layer_range"];
    if (!range.IsSequence() || range.size() != 2)
      return add(range, "layer_range is a list of two numbers, [first, end)");
    const std::optional<std::int64_t> first = whole_number(range[0]), last = whole_number(range[1]);
    if (!first || !last) return add(range, "layer_range is a list of two whole numbers");
    parts.push_back({source["model"].Scalar(), *first, *last, place(range.Mark())});
  }

  static std::optional<std::int64_t> whole_number(const YAML::Node& node) {
    if (!node.IsScalar()) return std::nullopt;
    const std::string& text = node.Scalar();
    std::int64_t value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  }

  std::string file_;
  ProblemList problems_;
  lp::MergeFile merge_;
};

}  // namespace

lp::MergeFile read_merge_file(const std::filesystem::path& file) {
  return MergeReader(file.string()).read(read_file(file, kLargestFile));
}

}  // namespace espalier::cli
