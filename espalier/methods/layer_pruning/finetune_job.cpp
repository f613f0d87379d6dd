// The order of things in a finetuning run.
#include "espalier/methods/layer_pruning/finetune_job.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/methods/layer_pruning/finetune_output.h"
#include "espalier/methods/layer_pruning/finetune_report.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/surgery/write_model.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kProbeRows = 4;

/// What an earlier, killed attempt left of the model goes: the writers expect an empty folder.
void clear_output(const RunFolder& run) {
  for (const auto& entry : fs::directory_iterator(run.folder())) {
    if (entry.path() == run.run_dir() || entry.path().filename().string().starts_with("."))
      continue;
    std::error_code ignored;
    fs::remove_all(entry.path(), ignored);
  }
}

class Evaluation {
 public:
  Evaluation(const FinetuneJob& job, const FinetuneData& training, const Tokenizer& tokenizer,
             Reporter& reporter)
      : options_(job.eval_options), bos_(tokenizer.bos().value_or(0)) {
    if (!job.eval_text) return;
    text_ = load_token_text(*job.eval_text, tokenizer, reporter, job.special_in_text,
                            perplexity_text_tokens(options_));
    if (text_->sha256 == training.sha256) {
      reporter.warn(
          format("test leak: {} is the training text itself; the perplexity after says nothing "
                 "about other text",
                 job.eval_text->string()));
    }
  }
  std::optional<PerplexityResult> operator()(const Decoder& model, Reporter& reporter,
                                             const StopToken& stop) const {
    if (!text_) return std::nullopt;
    return perplexity(model, *text_, options_, bos_, reporter, stop);
  }
  std::string sha256() const { return text_ ? text_->sha256 : ""; }

 private:
  PerplexityOptions options_;
  TokenId bos_;
  std::optional<TokenText> text_;
};

Decoder load_base(const FinetuneJob& job,
                  const std::shared_ptr<const DecoderCheckpoint>& checkpoint, Reporter& reporter) {
  if (job.options.mode == TuneMode::kQlora)
    return load_nf4_decoder(checkpoint, job.options.compute, job.device, {}, reporter);
  return Decoder::load(checkpoint, job.options.compute, job.device);
}

/// The base with the adapter to go on from, whose settings then win over those of the options.
Decoder load_for_tuning(FinetuneJob& job,
                        const std::shared_ptr<const DecoderCheckpoint>& checkpoint,
                        Reporter& reporter) {
  Decoder model = load_base(job, checkpoint, reporter);
  if (!job.init_adapter) return model;
  if (!uses_adapters(job.options.mode)) {
    throw Error(
        ErrorKind::kUsage, "--init-adapter",
        format("goes with --mode lora, qlora or dora, not {}", tune_mode_name(job.options.mode)));
  }
  const PeftFolder folder = PeftFolder::open(*job.init_adapter);
  if (folder.config().dora != (job.options.mode == TuneMode::kDora)) {
    throw Error(ErrorKind::kUsage, "--init-adapter",
                folder.config().dora ? "is a DoRA adapter" : "is not a DoRA adapter")
        .hint(folder.config().dora ? "--mode dora" : "--mode lora");
  }
  load_adapters(model, folder);
  const std::string base = job.options.adapter.base_model;
  job.options.adapter = folder.config();
  job.options.adapter.base_model = base;
  return model;
}

TrainingRows probe_rows(const TrainingRows& rows) {
  TrainingRows probe;
  for (std::int64_t i = 0; i < std::min(rows.size(), kProbeRows); ++i) probe.add(rows.row(i));
  return probe;
}

}  // namespace

FinetuneOutcome run_finetune_job(const FinetuneJob& job, const FinetuneData& data,
                                 const Tokenizer& tokenizer, RunFolder& run, Reporter& reporter,
                                 const StopToken& stop) {
  const std::shared_ptr<const DecoderCheckpoint> checkpoint = DecoderCheckpoint::open(job.source);
  check_finetune_options(job.options, checkpoint->config());
  const Evaluation evaluate(job, data, tokenizer, reporter);
  FinetuneJob resolved = job;
  Decoder model = load_for_tuning(resolved, checkpoint, reporter);
  FinetuneOutcome outcome;
  outcome.eval_sha256 = evaluate.sha256();
  outcome.before = evaluate(model, reporter, stop);
  if (outcome.before)
    reporter.info(format("perplexity before: {:.4f}", outcome.before->perplexity));
  outcome.training = finetune(model, data.rows, resolved.options, run, reporter, stop,
                              checkpoint.get(), &data.held_out);

  const bool adapters = uses_adapters(job.options.mode);
  std::map<std::string, at::Tensor> trained;
  if (adapters) {
    for (const auto& [name, master] : outcome.training.trained)
      trained.emplace(name, master.detach().to(at::kCPU).contiguous());
  } else {
    trained = round_to_stored(job.source, outcome.training.trained, model);
  }
  outcome.training.trained.clear();
  outcome.after = evaluate(model, reporter, stop);
  if (outcome.after) reporter.info(format("perplexity after: {:.4f}", outcome.after->perplexity));
  const TrainingRows probe = probe_rows(data.rows);
  outcome.probe_loss = rows_loss(model, probe);
  if (!std::isfinite(outcome.probe_loss)) {
    throw Error(ErrorKind::kInput, "the trained model",
                format("its loss on a probe batch is {}", outcome.probe_loss))
        .hint("use a lower --lr");
  }
  clear_output(run);
  if (adapters) {
    write_peft_folder(run.folder(), resolved.options.adapter, trained);
    // On the same base, which training left alone: a second one would double the memory.
    remove_adapters(model);
    load_adapters(model, PeftFolder::open(run.folder()));
    verify_tuned(run.folder(), model, probe, outcome.probe_loss, reporter);
  } else if (job.delta) {
    write_tuned_delta(job.source, trained, run.folder() / "delta.safetensors");
  } else {
    write_hf_with_replacements(job.source, trained, run.folder(), reporter);
    verify_finetuned(run.folder(), model, probe, outcome.probe_loss, reporter);
  }
  write_finetune_card(resolved, data, outcome, run.folder() / "README.md");
  write_finetune_report(resolved, data, outcome, run.run_dir() / "report.html");
  std::error_code ignored;
  fs::remove_all(run.run_dir() / "checkpoints",
                 ignored);  // the finished model holds what they were for
  return outcome;
}

}  // namespace espalier::layer_pruning
