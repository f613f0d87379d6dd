// `espalier convert`: a model from one format or weight type to another, its logits compared before
// it is published.
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/surgery/compare_models.h"
#include "espalier/surgery/write_model.h"

#include "apps/cli/commands.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"

namespace espalier::cli {
namespace {

struct ConvertOptions {
  ModelArgument model;
  OutputOptions output;
  std::string to, type = "auto";

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("What to write");
    option("to", to, "a Hugging Face folder or a GGUF file", one_of({"hf", "gguf"}) | required());
    option("type", type,
           "type of the matrices; auto loses nothing (quantised weights in a folder become f32)",
           one_of({"auto", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"}));
    output.visit(option);
  }
};

struct Converted {
  std::string type;
  ModelComparison comparison;
  std::uint64_t bytes = 0;
};

GgufType target_type(const ConvertOptions& o, const std::filesystem::path& source) {
  if (o.to == "hf") {
    if (o.type.starts_with("q")) {
      throw Error(ErrorKind::kUsage, "--type",
                  format("{} is a GGUF type, but --to hf writes a folder", o.type))
          .hint("--type f32, f16 or bf16");
    }
    if (o.type != "auto") return *parse_gguf_type(o.type);
    return gguf_type_of(default_hf_dtype(source));
  }
  return o.type == "auto" ? default_gguf_type(source) : *parse_gguf_type(o.type);
}

Converted write_gguf(const ConvertOptions& o, Context& context, const std::filesystem::path& source,
                     GgufType type, double limit) {
  OutputFile out = OutputFile::create(o.output.out, o.output.policy());
  convert_to_gguf(source, out.partial(), type, context.reporter, {}, context.stop);
  Converted result{std::string(gguf_type_info(type).name),
                   compare_models(source, {}, out.partial(), limit, context.reporter),
                   std::filesystem::file_size(out.partial())};
  out.publish();
  return result;
}

Converted write_folder(const ConvertOptions& o, Context& context,
                       const std::filesystem::path& source, GgufType type, double limit) {
  RunFacts facts;
  facts.verb = "convert";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.threads = at::get_num_threads();
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), facts);
  Reporter& reporter = run.log_to_file(context.reporter);
  run.add_input(source, "");
  convert_to_hf(source, run.folder(), dtype_of(type), reporter, {}, context.stop);
  write_file_atomically(
      run.folder() / "README.md",
      layer_pruning::conversion_card(source, dtype_name(dtype_of(type)), context.command_line));
  Converted result{std::string(dtype_name(dtype_of(type))),
                   compare_models(source, {}, run.folder(), limit, reporter), 0};
  for (const auto& entry : std::filesystem::directory_iterator(run.folder())) {
    if (entry.is_regular_file()) result.bytes += entry.file_size();
  }
  run.publish();
  return result;
}

int run_convert(const ConvertOptions& o, Context& context) {
  const Stopwatch watch;
  const ModelLocation location = o.model.locate();
  check_output_apart(o.output.out, {location.path});
  const GgufType stored = default_gguf_type(location.path), type = target_type(o, location.path);
  const double limit = comparison_limit(stored, type);
  const Converted result = o.to == "gguf" ? write_gguf(o, context, location.path, type, limit)
                                          : write_folder(o, context, location.path, type, limit);
  Json json;
  json["schema"] = "espalier.convert/1";
  json["model"] = o.model.model;
  json["to"] = o.to;
  json["type"] = result.type;
  json["max_abs_logit_difference"] = result.comparison.max_abs_diff;
  json["relative_logit_error"] = result.comparison.relative_error;
  json["top1_agreement"] = result.comparison.top1_agreement;
  json["out"] = o.output.out;
  json["bytes"] = result.bytes;
  json["seconds"] = watch.seconds();
  json["peak_rss_bytes"] = peak_rss().count;
  const std::string text = format(
      "{} ({}) in {}: {}\nlogits of {} tokens differ from the source's by at most {:.3g} (relative "
      "error {:.2g})\n",
      o.output.out, result.type, format_seconds(watch.seconds()),
      to_string(Bytes{static_cast<std::int64_t>(result.bytes)}), result.comparison.tokens,
      result.comparison.max_abs_diff, result.comparison.relative_error);
  context.print_result(text, dump_json(json));
  return 0;
}

}  // namespace

Command convert_command() {
  return make_command<ConvertOptions>(
      "convert", "Files", "a model folder to GGUF and back, or to another weight type", run_convert,
      {"espalier convert model.gguf --to hf --out model",
       "espalier convert MODEL --to gguf --type q8_0 --out model-q8_0.gguf"});
}

}  // namespace espalier::cli
