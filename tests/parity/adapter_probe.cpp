// Speaks for our adapters to adapters_parity.py. IDS holds `ids` int64 [batch, tokens].
//   adapter_probe load MODEL ADAPTER IDS OUT      logits, loss and gradients of a saved adapter
//   adapter_probe make MODEL CONFIG IDS OUT DIR   a fresh adapter with seeded values: DIR, logits
//   adapter_probe logits MODEL IDS OUT            logits of a model (bitsandbytes folders)
//   adapter_probe nf4 IN OUT                      every matrix of IN quantised, plain and nested
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/io/safetensors.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

Tensors read(const char* path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  Tensors out;
  for (const StoredTensor& t : file.tensors())
    out[t.name] = view_bytes(t.data, t.dtype, t.shape, t.file);
  return out;
}

void write(const char* path, const Tensors& tensors) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors)
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, plan);
  for (const auto& [name, tensor] : tensors)
    writer.append(tensor_bytes(tensor.detach().contiguous()));
  writer.finish();
}

void load(char** argv) {
  Decoder model = Decoder::load(argv[2], at::kFloat, at::kCPU);
  load_adapters(model, PeftFolder::open(argv[3]));
  const at::Tensor ids = read(argv[4])["ids"];
  std::vector<std::string> names;
  std::vector<at::Tensor> leaves;
  for_each_adapter_tensor(model, [&](const std::string& name, at::Tensor& tensor) {
    tensor.set_requires_grad(true);
    names.push_back("grad." + name);
    leaves.push_back(tensor);
  });
  const at::Tensor logits = model.forward(ids);
  const std::int64_t tokens = ids.size(1);
  const at::Tensor loss =
      at::cross_entropy_loss(logits.narrow(1, 0, tokens - 1).reshape({-1, logits.size(2)}),
                             ids.narrow(1, 1, tokens - 1).reshape({-1}));
  const auto grads = torch::autograd::grad({loss}, leaves);
  Tensors out{{"logits", logits}, {"loss", loss.reshape({1})}};
  for (std::size_t i = 0; i < names.size(); ++i) out[names[i]] = grads[i];
  write(argv[5], out);
}

void make(char** argv) {
  Decoder model = Decoder::load(argv[2], at::kFloat, at::kCPU);
  const PeftConfig config = parse_peft_config(read_file(argv[3]), argv[3]);
  attach_adapters(model, config, 11);
  at::manual_seed(1);
  for_each_adapter_tensor(model, [](const std::string& name, at::Tensor& tensor) {
    if (name.ends_with("lora_B.weight")) tensor.normal_(0, 0.05);
    if (name.ends_with("magnitude_vector")) tensor.mul_(at::rand_like(tensor) + 0.5);
  });
  if (!config.modules_to_save.empty()) model.set_head(model.head_weight() * 1.05);
  write_peft_folder(argv[6], config, adapter_tensors(model, config));
  write(argv[5], {{"logits", model.forward(read(argv[4])["ids"])}});
}

void quantise(char** argv) {
  Tensors out;
  for (const auto& [name, tensor] : read(argv[2])) {
    for (const bool nested : {false, true}) {
      const Nf4Weight w = nf4_quantize(tensor, {nested, 64});
      const std::string prefix = name + (nested ? ".nested." : ".plain.");
      out[prefix + "packed"] = w.packed;
      out[prefix + "absmax"] = w.absmax;
      if (nested) {
        out[prefix + "nested_absmax"] = w.nested_absmax;
        out[prefix + "nested_map"] = w.nested_map;
        out[prefix + "nested_offset"] = at::full({1}, w.nested_offset);
      }
      out[prefix + "float32"] = nf4_dequantize(w, at::kFloat);
      out[prefix + "bfloat16"] = nf4_dequantize(w, at::kBFloat16);
    }
  }
  write(argv[3], out);
}

int run(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "load" && argc == 6) return load(argv), 0;
  if (verb == "make" && argc == 7) return make(argv), 0;
  if (verb == "nf4" && argc == 4) return quantise(argv), 0;
  if (verb == "logits" && argc == 5) {
    const Decoder model = Decoder::load(argv[2], at::kFloat, at::kCPU);
    write(argv[4], {{"logits", model.forward(read(argv[3])["ids"])}});
    return 0;
  }
  std::fprintf(stderr, "usage: adapter_probe load|make|logits|nf4 ARGUMENTS\n");
  return 2;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  try {
    return espalier::run(argc, argv);
  } catch (const espalier::Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
