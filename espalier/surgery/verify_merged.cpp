// The proof of a merge: logits of model plus adapter against logits of what was written.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/models/decoder/tensor_names.h"
#include "espalier/surgery/weight_edits_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kTokens = 16;

at::Tensor probe_ids(std::int64_t vocab) {
  RandomStream stream(0, "verify_merged");
  std::vector<std::int64_t> ids(kTokens);
  for (std::int64_t& id : ids)
    id = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(vocab)));
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

/// The one layer that `model` holds gets what the edits of layer `layer` say; low-rank ones stay
/// beside their weight.
void put_on_layer(Decoder& model, std::int64_t layer, const WeightEdits& edits) {
  const auto find = [&](const std::string& local) {
    return find_edit(edits, layer_prefix(layer) + local.substr(layer_prefix(0).size()));
  };
  for_each_tensor(model.block(0), "model.layers.0", [&](const std::string& name, at::Tensor& slot) {
    const WeightEdit* edit = find(name);
    if (edit != nullptr && edit->replacement != nullptr) slot = edited_weight(*edit, {});
  });
  for_each_linear(model, [&](const std::string& name, Linear& linear) {
    const WeightEdit* edit = find(name + ".weight");
    if (edit == nullptr || edit->low_rank == nullptr) return;
    linear.adapter = load_low_rank(*edit->low_rank, at::kCPU);
    if (linear.adapter->is_dora()) linear.adapter->weight_norm_squared = row_norms_squared(linear);
  });
}

at::Tensor logits_with_adapter(Decoder model, const at::Tensor& ids, const WeightEdits& edits) {
  if (const WeightEdit* edit = find_edit(edits, "lm_head.weight"))
    model.set_head(edited_weight(*edit, model.head_weight()));
  if (const WeightEdit* edit = find_edit(edits, "model.embed_tokens.weight"))
    model.embedding() = edited_weight(*edit, model.embedding());
  if (const WeightEdit* edit = find_edit(edits, "model.norm.weight"))
    model.norm().weight = edited_weight(*edit, {});
  at::Tensor h = model.embed(ids);
  for (std::int64_t layer = 0; layer < model.num_layers(); ++layer) {
    Decoder one = model.hold_layer(layer);
    put_on_layer(one, layer, edits);
    h = one.run_layer(h, 0, one.context(ids.size(1)));
  }
  return model.logits(model.final_norm(h)).squeeze(0).to(at::kDouble);
}

/// Fused matrices (qkv_proj) exist in files only.
bool all_in_decoder(const DecoderConfig& config, const WeightEdits& edits) {
  std::map<std::string, bool> names;
  for (const TensorSpec& spec : decoder_tensor_specs(config)) names[spec.name] = true;
  for (const auto& [name, edit] : edits.by_name) {
    if (name != "lm_head.weight" && !names.contains(name)) return false;
  }
  return true;
}

}  // namespace

void verify_merged(const std::filesystem::path& source, const WeightEdits& edits,
                   const std::filesystem::path& output, double limit, Reporter& reporter,
                   MergeSummary& summary) {
  const c10::NoGradGuard no_grad;
  const auto phase =
      reporter.phase("comparing the merged model with model plus adapter", 2, "models");
  const Decoder merged = Decoder::load(output, at::kFloat, at::kCPU, Residency::kStreamed);
  if (!all_in_decoder(merged.config(), edits)) {
    reporter.warn(
        "the merge was not compared with model plus adapter: the adapter sits on "
        "matrices that the file fuses");
    return;
  }
  Decoder base = Decoder::load(source, at::kFloat, at::kCPU, Residency::kStreamed);
  if (!edits.prune.empty()) base = base.with_layers(edits.prune);
  const at::Tensor ids = probe_ids(merged.config().vocab_size);
  const at::Tensor expected = logits_with_adapter(std::move(base), ids, edits);
  phase->update(1);
  const at::Tensor found = merged.forward(ids).squeeze(0).to(at::kDouble);
  phase->update(2);
  const at::Tensor diff = found - expected;
  // A common offset of a position's logits means nothing.
  const auto centred = [](const at::Tensor& x) { return (x - x.mean(-1, true)).norm(); };
  summary.max_abs_diff = diff.abs().max().item<double>();
  summary.relative_error = (centred(diff) / centred(expected)).item<double>();
  if (!(summary.relative_error <= limit)) {
    throw Error(ErrorKind::kInternal, output.string(),
                format("does not compute what model plus adapter compute: logits differ by up to "
                       "{:.3g}, relative error {:.3g}, at most {:.3g} is rounding",
                       summary.max_abs_diff, summary.relative_error, limit))
        .hint(
            "the result was not published; please report this with the command and the "
            "adapter's adapter_config.json");
  }
}

}  // namespace espalier
