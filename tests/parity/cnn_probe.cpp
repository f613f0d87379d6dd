// Speaks for our CNNs and our reader of torch.save's files to cnn_parity.py.
//   cnn_probe make ARCH CLASSES SEED FOLDER       random weights, statistics of one batch of noise
//   cnn_probe run NET ARCH|- IN OUT running|batch|grad
//       IN: safetensors with `images`; OUT: `logits`, `hidden.0`, ...; batch and grad: the tensors
//       after the pass too; grad: `grad.NAME` of the sum of squares of the logits
//   cnn_probe prune NET KEPT FOLDER               KEPT: 0,1,4
//   cnn_probe pickle IN OUT                       every tensor of a file of torch.save
// An Error is printed and its exit code returned.
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/io/safetensors.h"
#include "espalier/io/torch_pickle.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/surgery/prune_cnn.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

using Tensors = std::vector<NamedTensor>;

void write(const std::string& path, const Tensors& tensors) {
  std::vector<TensorPlan> plan;
  for (const NamedTensor& t : tensors)
    plan.push_back({t.name, to_dtype(t.tensor.scalar_type()), t.tensor.sizes().vec()});
  SafetensorsWriter writer(path, plan);
  for (const NamedTensor& t : tensors) writer.append(tensor_bytes(t.tensor.detach().contiguous()));
  writer.finish();
}

void make(const std::string& arch, std::int64_t classes, std::uint64_t seed,
          const std::string& folder) {
  const c10::NoGradGuard no_grad;
  const Cnn net = Cnn::make(cnn_config(arch, classes), seed);
  const at::Generator generator = make_generator(seed, "noise", 0, 0, at::kCPU);
  net.forward(at::randn({4, 3, 64, 64}, generator), NormMode::kBatch);
  net.save(folder);
}

void run(const std::string& path, const std::string& arch, const std::string& in,
         const std::string& out, const std::string& mode) {
  const c10::AutoGradMode with_grad(mode == "grad");
  const Cnn net = Cnn::load(path, arch == "-" ? "" : arch);
  const SafetensorsFile file = SafetensorsFile::open(in);
  const StoredTensor* stored = file.find("images");
  if (stored == nullptr) throw Error(ErrorKind::kInput, in, "holds no `images`");
  const at::Tensor images = view_bytes(stored->data, stored->dtype, stored->shape, stored->file);
  if (mode == "grad")
    for (NamedTensor& p : net.parameters()) p.tensor.set_requires_grad(true);
  Tensors results;
  const at::Tensor logits = net.forward_hidden(
      images, mode == "running" ? NormMode::kRunning : NormMode::kBatch,
      [&](std::int64_t index, const at::Tensor& feature) {
        results.push_back({"hidden." + std::to_string(index), feature.detach().clone()});
      });
  results.push_back({"logits", logits});
  if (mode != "running")
    for (const NamedTensor& buffer : net.buffers()) results.push_back(buffer);
  if (mode == "grad") {
    logits.square().sum().backward();
    // An edge whose result nobody uses gets no gradient.
    for (const NamedTensor& p : net.parameters()) {
      const at::Tensor grad = p.tensor.grad();
      results.push_back({"grad." + p.name, grad.defined() ? grad : at::zeros_like(p.tensor)});
    }
  }
  write(out, results);
}

void prune(const std::string& path, const std::string& kept, const std::string& folder) {
  std::vector<std::int64_t> indices;
  std::istringstream words(kept);
  for (std::string word; std::getline(words, word, ',');) indices.push_back(std::stoll(word));
  write_pruned_cnn(Cnn::load(path), indices, {}, folder, silent_reporter());
}

void pickle(const std::string& in, const std::string& out) {
  Tensors tensors;
  for (const auto& [name, tensor] : load_torch_pickle(in).tensors)
    tensors.push_back({name, tensor});
  write(out, tensors);
}

int answer(const std::vector<std::string>& words) {
  if (words.size() == 5 && words[0] == "make")
    make(words[1], std::stoll(words[2]), std::stoull(words[3]), words[4]);
  else if (words.size() == 6 && words[0] == "run")
    run(words[1], words[2], words[3], words[4], words[5]);
  else if (words.size() == 4 && words[0] == "prune")
    prune(words[1], words[2], words[3]);
  else if (words.size() == 3 && words[0] == "pickle")
    pickle(words[1], words[2]);
  else
    return 2;
  return 0;
}

}  // namespace
}  // namespace espalier

int main(int count, char** words) {
  try {
    return espalier::answer({words + 1, words + count});
  } catch (const espalier::Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
