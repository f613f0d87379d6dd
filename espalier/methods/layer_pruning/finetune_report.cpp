// Model card and report of a finetuning run.
#include "espalier/methods/layer_pruning/finetune_report.h"

#include <cmath>

#include <c10/core/ScalarType.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/report/html_report.h"
#include "espalier/run/build_info.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using Rows = std::vector<std::vector<std::string>>;

std::string what_trained(const FinetuneJob& job) {
  if (job.options.mode == TuneMode::kFull) return "all parameters";
  if (uses_adapters(job.options.mode)) {
    const PeftConfig& a = job.options.adapter;
    std::string text = format("{} adapters, rank {}, alpha {}{}",
                              job.options.mode == TuneMode::kDora    ? "DoRA"
                              : job.options.mode == TuneMode::kQlora ? "LoRA (on an NF4 base)"
                                                                     : "LoRA",
                              a.rank, a.alpha, a.rslora ? ", rank-stabilised" : "");
    for (const std::string& module : a.modules_to_save) text += format(", {}", module);
    return text;
  }
  if (job.options.last == 0) return "output head and final norm";
  return job.options.last == 1
             ? "output head, final norm and the last layer"
             : format("output head, final norm and the last {} layers", job.options.last);
}

std::string protocol(const PerplexityResult& r, const PerplexityOptions& o,
                     const FinetuneJob& job) {
  return format("{}: {} x {} tokens, {}, {}, {}", job.eval_text->filename().string(), r.segments,
                o.seq_len, o.stride > 0 ? format("stride {}", o.stride) : std::string("no overlap"),
                o.add_bos ? "BOS in front of each" : "no BOS",
                dtype_name(to_dtype(job.options.compute)));
}

std::string with_error(const PerplexityResult& r) {
  return r.segments > 1 ? format("{:.4f} ± {:.4f}", r.perplexity, r.perplexity_stderr)
                        : format("{:.4f}", r.perplexity);
}

Rows before_after(const FinetuneOutcome& outcome) {
  Rows rows{{"training loss (nats/token), first and last step",
             format("{:.4f}", outcome.training.loss_first),
             format("{:.4f}", outcome.training.loss_last)}};
  const auto& held_out = outcome.training.held_out;
  if (!held_out.empty()) {
    rows.push_back({"held-out loss, first and last measured",
                    format("{:.4f}", held_out.front().second),
                    format("{:.4f}", held_out.back().second)});
  }
  if (outcome.before && outcome.after)
    rows.insert(rows.begin(),
                {"perplexity", with_error(*outcome.before), with_error(*outcome.after)});
  return rows;
}

Rows settings(const FinetuneJob& job, const FinetuneData& data, const FinetuneOutcome& outcome) {
  const FinetuneOptions& o = job.options;
  const FinetuneResult& r = outcome.training;
  return {{"trained",
           format("{} ({} parameters)", what_trained(job), format_count(r.trainable_parameters))},
          {"data", format("{} as {}: {} rows of up to {} tokens, {} tokens, {} of them predicted",
                          data.path.filename().string(), data.format, format_count(r.rows),
                          data.rows.longest(), format_count(data.rows.tokens()),
                          format_count(data.rows.predicted()))},
          {"data sha256", data.sha256},
          {"steps", format("{} of {} rows, {} tokens in all", format_count(r.steps), o.batch_size,
                           format_count(r.tokens))},
          {"optimizer", format("AdamW, lr {}, {} decay, warm-up {} steps, betas {}/{}, eps {}, "
                               "weight decay {}, clip {}",
                               o.lr, lr_decay_name(o.decay), o.warmup, o.beta1, o.beta2, o.eps,
                               o.weight_decay, o.clip)},
          {"precision", format("{} compute, float32 masters", dtype_name(to_dtype(o.compute)))},
          {"prefix cache",
           r.prefix_cache_bytes > 0
               ? format("{}, filled in {}",
                        to_string(Bytes{static_cast<std::int64_t>(r.prefix_cache_bytes)}),
                        format_seconds(r.prefix_seconds))
               : std::string("not used")},
          {"speed",
           format("{:.0f} tokens/s, {} in steps", r.tokens_per_second, format_seconds(r.seconds))},
          {"seed", format("{}", o.seed)}};
}

}  // namespace

void write_finetune_card(const FinetuneJob& job, const FinetuneData& data,
                         const FinetuneOutcome& outcome, const fs::path& path) {
  const std::string name = model_name(job.source);
  std::string card = card_front_matter(job.source);
  card += format("# {}, finetuned with espalier\n\n", name);
  card += format(
      "Trained: {} of `{}`, on `{}`{}.\n\n", what_trained(job), name, data.path.filename().string(),
      outcome.training.untied_bytes > 0 ? "; the output head was untied from the embedding for that"
                                        : "");
  card += markdown_table({"", "before", "after"}, before_after(outcome));
  if (outcome.after)
    card += format("\nPerplexity on {}.\n", protocol(*outcome.after, job.eval_options, job));
  card += "\n## How\n\n" + markdown_table({"setting", "value"}, settings(job, data, outcome));
  if (!job.command_line.empty()) card += format("\n```\n{}\n```\n", job.command_line);
  if (source_licence(job.source).empty()) card += "\nThe licence is the base model's.\n";
  write_file_atomically(path, card);
}

void write_finetune_report(const FinetuneJob& job, const FinetuneData& data,
                           const FinetuneOutcome& outcome, const fs::path& path) {
  const FinetuneResult& r = outcome.training;
  HtmlReport report(format("Finetuning {}", model_name(job.source)), what_trained(job));
  std::vector<std::pair<std::string, std::string>> figures;
  if (outcome.before)
    figures.emplace_back("perplexity before", format("{:.2f}", outcome.before->perplexity));
  if (outcome.after)
    figures.emplace_back("perplexity after", format("{:.2f}", outcome.after->perplexity));
  figures.emplace_back("training loss, last step", format("{:.3f}", r.loss_last));
  figures.emplace_back("parameters trained", format_count(r.trainable_parameters));
  report.figures(figures);

  std::vector<double> steps;
  for (std::size_t i = 0; i < r.losses.size(); ++i) steps.push_back(static_cast<double>(i + 1));
  ReportChart loss;
  loss.title = "Training loss";
  loss.x_label = "step";
  loss.y_label = "loss (nats/token)";
  loss.series = {{"loss", steps, r.losses}};
  if (r.held_out.size() > 1) {
    std::vector<double> at, values;
    for (const auto& [step, value] : r.held_out) {
      at.push_back(static_cast<double>(step));
      values.push_back(value);
    }
    loss.series.push_back({"held-out rows", at, values});
  }
  report.heading("Training");
  report.chart(loss);
  ReportChart rate = loss;
  rate.series.clear();
  rate.title = "Learning rate";
  rate.y_label = "learning rate";
  rate.series = {{"learning rate", steps, r.rates}};
  report.chart(rate);

  report.heading("Before and after");
  report.table({"", {"", "before", "after"}, before_after(outcome)});
  if (outcome.after)
    report.paragraph(format("Perplexity on {}.", protocol(*outcome.after, job.eval_options, job)));
  report.heading("Settings");
  report.table({"", {"setting", "value"}, settings(job, data, outcome)});
  std::vector<std::pair<std::string, std::string>> facts{{"source", job.source.string()},
                                                         {"command", job.command_line}};
  if (!outcome.eval_sha256.empty())
    facts.emplace_back("evaluation text sha256", outcome.eval_sha256);
  facts.emplace_back("probe loss, in memory and reloaded", format("{}", outcome.probe_loss));
  facts.emplace_back("espalier", build_info().version);
  facts.emplace_back("libtorch", build_info().libtorch_version);
  report.provenance(facts);
  report.write(path);
}

}  // namespace espalier::layer_pruning
