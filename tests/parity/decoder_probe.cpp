// Speaks for our decoder to decoder_parity.py.
//   decoder_probe MODEL IDS.safetensors OUT.safetensors DTYPE NEW_TOKENS
// IDS holds `ids` int64 [batch, tokens]. OUT gets `logits` float32 [batch, tokens, vocab] of a
// whole forward, `cached` [tokens, vocab] of row 0 fed token by token through a cache, and `greedy`
// int64 [NEW_TOKENS]: what greedy decoding with a cache adds to row 0.
#include <cstdio>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/base/error.h"
#include "espalier/io/safetensors.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

at::Tensor step(const Decoder& model, const at::Tensor& ids, KvCache& cache,
                std::int64_t longest = 0) {
  const std::int64_t tokens = ids.size(1);
  const at::Tensor h = model.run_layers(model.embed(ids), 0, model.num_layers(),
                                        model.context(tokens, cache.length(), longest), &cache);
  Decoder::advance(cache, tokens);
  return model.logits(model.final_norm(h.narrow(1, tokens - 1, 1))).reshape({-1});
}

at::Tensor one_by_one(const Decoder& model, const at::Tensor& row) {
  KvCache cache(model.config(), 1, row.size(1), model.type(), model.device());
  std::vector<at::Tensor> logits;
  for (std::int64_t i = 0; i < row.size(1); ++i)
    logits.push_back(step(model, row.narrow(1, i, 1), cache, row.size(1)));
  return at::stack(logits);
}

at::Tensor greedy(const Decoder& model, const at::Tensor& row, std::int64_t count) {
  KvCache cache(model.config(), 1, row.size(1) + count, model.type(), model.device());
  at::Tensor out = at::empty({count}, at::kLong);
  at::Tensor next = row;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!model.serves(cache, cache.length() + next.size(1))) {
      cache.truncate(0);
      next = at::cat({row, out.narrow(0, 0, i).unsqueeze(0)}, 1);
    }
    next = step(model, next, cache).argmax().reshape({1, 1});
    out[i] = next.item<std::int64_t>();
  }
  return out;
}

int run(char** argv) {
  c10::InferenceMode inference;
  const SafetensorsFile input = SafetensorsFile::open(argv[2]);
  const StoredTensor* stored = input.find("ids");
  ESPALIER_ASSERT(stored != nullptr);
  const at::Tensor ids = view_bytes(stored->data, stored->dtype, stored->shape, stored->file);
  const Decoder model =
      Decoder::load(argv[1], to_scalar_type(parse_dtype(argv[4]).value()), at::kCPU);
  const at::Tensor row = ids.narrow(0, 0, 1);
  const std::vector<std::pair<std::string, at::Tensor>> results{
      {"logits", model.forward(ids).contiguous()},
      {"cached", one_by_one(model, row)},
      {"greedy", greedy(model, row, std::stoll(argv[5]))}};
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : results)
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(argv[3], plan);
  for (const auto& [name, tensor] : results) writer.append(tensor_bytes(tensor));
  writer.finish();
  return 0;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr,
                 "usage: decoder_probe MODEL IDS.safetensors OUT.safetensors DTYPE NEW_TOKENS\n");
    return 2;
  }
  try {
    return espalier::run(argv);
  } catch (const espalier::Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
