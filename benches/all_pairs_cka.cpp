// Seconds for the unbiased CKA of all pairs of layers, from features to matrix, as JSON;
// all_pairs_cka.py compares it with loops over pairs in PyTorch on the same features.
//
//   all_pairs_cka FEATURES.safetensors REPEATS      tensors layer.0, layer.1, ... [samples, width]
//   float32
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/safetensors.h"
#include "espalier/similarity/similarity.h"
#include "espalier/similarity/similarity_charts.h"
#include "espalier/tensor/tensor_view.h"

namespace {

int measure(const std::string& path, int repeats) {
  using namespace espalier;
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::map<int, at::Tensor> by_layer;
  for (const StoredTensor& stored : file.tensors())
    by_layer[std::stoi(stored.name.substr(6))] =
        view_bytes(stored.data, stored.dtype, stored.shape, stored.file);
  std::vector<at::Tensor> features;
  for (const auto& [layer, tensor] : by_layer) features.push_back(tensor.clone());
  Json json;
  json["seconds"] = Json::array();
  at::Tensor cka;
  for (int repeat = 0; repeat <= repeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    HsicMatrix hsic(static_cast<std::int64_t>(features.size()), CkaEstimator::kUnbiased);
    hsic.add_batch(features);
    cka = hsic.cka();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (repeat > 0) json["seconds"].push_back(taken.count());  // the first one warms up
  }
  json["cka"] = matrix_rows(cka);
  std::cout << json.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: all_pairs_cka FEATURES.safetensors REPEATS\n";
    return 2;
  }
  try {
    return measure(argv[1], std::stoi(argv[2]));
  } catch (const espalier::Error& error) {
    std::cerr << error.to_string() << "\n";
    return error.exit_code();
  }
}
