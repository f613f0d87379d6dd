// Proof that a pruned file computes what the source computes without the removed layers.
#include <cstring>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/models/decoder/quantized_forward.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

// One token attends to nothing but itself, so queries and keys would not matter; two tokens use
// every weight of a layer.
constexpr std::int64_t kTokens = 2;

using Bits = std::vector<std::byte>;

Bits bits_of(const at::Tensor& hidden) {
  const at::Tensor plain = hidden.contiguous();
  const auto bytes = tensor_bytes(plain);
  return {bytes.begin(), bytes.end()};
}

/// The residual stream after the embedding and after each of `layers`.
std::vector<Bits> hidden_states(const DecoderCheckpoint& checkpoint,
                                const std::vector<std::int64_t>& layers,
                                const std::vector<std::int64_t>& ids, ProgressPhase& phase,
                                std::int64_t done_before) {
  std::vector<Bits> states;
  last_hidden(checkpoint, layers, ids, [&](std::int64_t position, const at::Tensor& hidden) {
    states.push_back(bits_of(hidden));
    phase.update(done_before + position + 1);
  });
  return states;
}

/// Everything behind the layers: the final norm and, when it is a matrix of its own, the head are
/// compared as bytes.
void compare_outside(const DecoderCheckpoint& source, const DecoderCheckpoint& pruned) {
  for (const char* name : {"model.norm.weight", "lm_head.weight"}) {
    if (!source.has(name) && !pruned.has(name)) continue;
    bool equal = source.has(name) && pruned.has(name);
    if (equal) {
      const StoredWeight a = source.stored(name), b = pruned.stored(name);
      equal = a.type == b.type && a.shape == b.shape && a.data.size() == b.data.size();
      constexpr std::size_t kPiece = 16 << 20;
      for (std::size_t at = 0; equal && at < a.data.size(); at += kPiece) {
        const auto x = a.data.subspan(at, std::min(kPiece, a.data.size() - at)),
                   y = b.data.subspan(at, x.size());
        equal = std::memcmp(x.data(), y.data(), x.size()) == 0;
        a.file->release(x);
        b.file->release(y);
      }
    }
    if (!equal) {
      throw Error(ErrorKind::kInternal, pruned.path().string(),
                  format("{} differs from the source's", name));
    }
  }
}

}  // namespace

void verify_pruned(const std::filesystem::path& source, const std::vector<std::int64_t>& kept,
                   const std::filesystem::path& pruned, Reporter& reporter) {
  const auto before = DecoderCheckpoint::open(source);
  const auto after = DecoderCheckpoint::open(pruned);
  const auto count = static_cast<std::int64_t>(kept.size());
  check_kept(kept, before->config().num_layers);
  const auto refuse = [&](const std::string& message) {
    throw Error(ErrorKind::kInternal, pruned.string(), message)
        .hint(
            "the result was not published; please report this with the command and the model's "
            "config.json");
  };
  if (after->config().num_layers != count) {
    refuse(format("holds {} layers, but {} were kept", after->config().num_layers, count));
  }
  RandomStream stream(0, "verify_pruned");
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < kTokens; ++i) {
    ids.push_back(static_cast<std::int64_t>(
        stream.below(static_cast<std::uint64_t>(before->config().vocab_size))));
  }
  const auto phase = reporter.phase("comparing with the source", 2 * count, "layers");
  const std::vector<Bits> expected = hidden_states(*before, kept, ids, *phase, 0);
  const std::vector<Bits> found = hidden_states(*after, complement({}, count), ids, *phase, count);
  ESPALIER_ASSERT(expected.size() == found.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == found[i]) continue;
    if (i == 0) refuse("the embedding gives other hidden states than the source's");
    refuse(format(
        "layer {} gives other hidden states than layer {} of the source, which it should equal",
        i - 1, kept[i - 1]));
  }
  compare_outside(*before, *after);
}

}  // namespace espalier
