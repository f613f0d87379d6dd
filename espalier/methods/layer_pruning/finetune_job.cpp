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
  Evaluation(const FinetuneJob& job, const TokenText& training, const Tokenizer& tokenizer,
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

}  // namespace

FinetuneOutcome run_finetune_job(const FinetuneJob& job, const TokenText& text,
                                 const Tokenizer& tokenizer, RunFolder& run, Reporter& reporter,
                                 const StopToken& stop) {
  const std::shared_ptr<const DecoderCheckpoint> checkpoint = DecoderCheckpoint::open(job.source);
  check_finetune_options(job.options, checkpoint->config());
  const Evaluation evaluate(job, text, tokenizer, reporter);
  Decoder model = Decoder::load(checkpoint, job.options.compute, job.device);
  FinetuneOutcome outcome;
  outcome.eval_sha256 = evaluate.sha256();
  outcome.before = evaluate(model, reporter, stop);
  if (outcome.before)
    reporter.info(format("perplexity before: {:.4f}", outcome.before->perplexity));
  outcome.training = finetune(model, text, job.options, run, reporter, stop, checkpoint.get());

  const auto rounded = round_to_stored(job.source, outcome.training.trained, model);
  outcome.training.trained.clear();
  outcome.after = evaluate(model, reporter, stop);
  if (outcome.after) reporter.info(format("perplexity after: {:.4f}", outcome.after->perplexity));
  const at::Tensor probe = cut_segments(text, job.options.seq_len, kProbeRows);
  outcome.probe_loss = probe_loss(model, probe);
  if (!std::isfinite(outcome.probe_loss)) {
    throw Error(ErrorKind::kInput, "the trained model",
                format("its loss on a probe batch is {}", outcome.probe_loss))
        .hint("use a lower --lr");
  }
  clear_output(run);
  write_hf_with_replacements(job.source, rounded, run.folder(), reporter);
  verify_finetuned(run.folder(), model, probe, outcome.probe_loss, reporter);
  write_finetune_card(job, text, outcome, run.folder() / "README.md");
  write_finetune_report(job, text, outcome, run.run_dir() / "report.html");
  std::error_code ignored;
  fs::remove_all(run.run_dir() / "checkpoints",
                 ignored);  // the finished model holds what they were for
  return outcome;
}

}  // namespace espalier::layer_pruning
