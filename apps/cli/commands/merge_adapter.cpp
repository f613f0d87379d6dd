// `espalier merge-adapter`: an adapter or a delta checkpoint folded into its model's weights.
#include "espalier/surgery/merge_adapter.h"

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/surgery/layer_plan.h"

#include "apps/cli/commands.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"

namespace espalier::cli {
namespace {

namespace fs = std::filesystem;

struct MergeAdapterOptions {
  ModelArgument model;
  OutputOptions output;
  std::string adapter, type = "auto", kept, remap_pruned = "auto";

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("What to merge");
    option("adapter", adapter,
           "a PEFT folder (LoRA, rsLoRA, DoRA) or a delta file that finetune wrote",
           placeholder("PATH") | required());
    option("remap_pruned", remap_pruned,
           "an adapter with more layers than MODEL moves onto the layers that MODEL's "
           "espalier_pruning.json kept; off refuses it",
           one_of({"auto", "off"}));
    option("kept", kept,
           "the layers of the adapter's model that MODEL still has, as 0-22 or 0-11,19-29 (both "
           "ends included) or 0:23 (half-open)",
           placeholder("LAYERS"));
    option("type", type,
           "GGUF models: type of the tensors that change; auto keeps float types and writes q8_0 "
           "for quantised ones",
           one_of({"auto", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"}));
    output.visit(option);
  }
};

MergeOptions merge_options(const MergeAdapterOptions& o, bool gguf) {
  MergeOptions options;
  if (o.type != "auto") {
    if (!gguf) {
      throw Error(ErrorKind::kUsage, "--type", "is for GGUF models; a folder keeps its types")
          .hint("merge, then `espalier convert`");
    }
    options.type = *parse_gguf_type(o.type);
  }
  options.remap = o.remap_pruned != "off";
  constexpr std::int64_t kManyLayers = 10'000;
  if (!o.kept.empty()) options.kept = parse_layer_set(o.kept, kManyLayers, "--kept");
  return options;
}

std::string merge_card(const fs::path& source, const fs::path& adapter, const MergeSummary& summary,
                       const std::string& command_line) {
  const std::string name = layer_pruning::model_name(source),
                    added = layer_pruning::model_name(adapter);
  std::string card = layer_pruning::card_front_matter(source);
  card += format("# {} with {} merged\n\n", name, added);
  card += format(
      "The adapter `{}` was folded into {} weight matrices of `{}`{}; all other tensors are "
      "unchanged. ",
      added, summary.low_rank, name,
      summary.replaced > 0 ? format(" and replaces {} tensors", summary.replaced) : std::string());
  if (!summary.remapped.empty())
    card += format("It was trained before layers were removed and moved onto the kept layers {}. ",
                   layer_set_text(summary.remapped));
  card += format("The logits of a probe differ from model plus adapter by at most {:.3g}.\n",
                 summary.max_abs_diff);
  if (!command_line.empty()) card += format("\n```\n{}\n```\n", command_line);
  if (layer_pruning::source_licence(source).empty()) card += "\nThe licence is the base model's.\n";
  return card;
}

MergeSummary merge_into_folder(const MergeAdapterOptions& o, Context& context,
                               const fs::path& source, const MergeOptions& options) {
  RunFacts facts;
  facts.verb = "merge-adapter";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.threads = at::get_num_threads();
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), facts);
  Reporter& reporter = run.log_to_file(context.reporter);
  run.add_input(source, "");
  run.add_input(o.adapter, "");
  const MergeSummary summary =
      merge_adapter(source, o.adapter, run.folder(), options, reporter, context.stop);
  write_file_atomically(run.folder() / "README.md",
                        merge_card(source, o.adapter, summary, context.command_line));
  run.publish();
  return summary;
}

int run_merge_adapter(const MergeAdapterOptions& o, Context& context) {
  const Stopwatch watch;
  const ModelLocation location = o.model.locate();
  const bool gguf = location.kind == ModelLocation::Kind::kGguf;
  const MergeOptions options = merge_options(o, gguf);
  check_output_apart(o.output.out, {location.path, o.adapter});
  if (gguf != o.output.out.ends_with(".gguf")) {
    throw Error(ErrorKind::kUsage, "--out",
                format("is {}, but the result of merging into a {}", o.output.out,
                       gguf ? "GGUF file is a .gguf file" : "folder is a folder"))
        .hint("merge, then `espalier convert`");
  }
  MergeSummary summary;
  if (gguf) {
    OutputFile out = OutputFile::create(o.output.out, o.output.policy());
    summary = merge_adapter(location.path, o.adapter, out.partial(), options, context.reporter,
                            context.stop);
    out.publish();
  } else {
    summary = merge_into_folder(o, context, location.path, options);
  }
  Json json;
  json["schema"] = "espalier.merge-adapter/1";
  json["model"] = o.model.model;
  json["adapter"] = o.adapter;
  json["merged"] = summary.low_rank;
  json["replaced"] = summary.replaced;
  json["adapter_tensors"] = summary.adapter_tensors;
  json["left_out"] = summary.left_out;
  json["remapped_onto"] = summary.remapped.empty() ? Json(nullptr) : Json(summary.remapped);
  json["untied_head"] = summary.untied_head;
  json["max_abs_logit_difference"] = summary.max_abs_diff;
  json["relative_logit_error"] = summary.relative_error;
  json["out"] = o.output.out;
  json["bytes"] = summary.bytes;
  json["seconds"] = watch.seconds();
  json["peak_rss_bytes"] = peak_rss().count;
  std::string text = format(
      "{} in {}: {} matrices merged, {} tensors replaced; all {} tensors of the adapter were used",
      o.output.out, format_seconds(watch.seconds()), summary.low_rank, summary.replaced,
      summary.adapter_tensors - summary.left_out);
  if (summary.left_out > 0) text += format(" ({} more belong to removed layers)", summary.left_out);
  text +=
      format("\nlogits differ from model plus adapter by at most {:.3g} (relative error {:.2g})\n",
             summary.max_abs_diff, summary.relative_error);
  context.print_result(text, dump_json(json));
  return 0;
}

}  // namespace

Command merge_adapter_command() {
  return make_command<MergeAdapterOptions>(
      "merge-adapter", "Files", "an adapter folded into its model's weights", run_merge_adapter,
      {"espalier merge-adapter MODEL --adapter ADAPTER --out MERGED",
       "espalier merge-adapter model.gguf --adapter ADAPTER --type q8_0 --out merged.gguf"});
}

}  // namespace espalier::cli
