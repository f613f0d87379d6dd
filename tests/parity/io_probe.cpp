// Speaks for our readers and writers to io_parity.py.
//   io_probe copy-safetensors IN OUT       read, then write every tensor (file to file) and the
//   metadata io_probe copy-gguf IN OUT              the same for GGUF io_probe copy-hf IN_FOLDER
//   OUT_FOLDER MAX_SHARD_BYTES io_probe dequantize IN.gguf OUT        all tensors as float32, one
//   after the other io_probe quantize TYPE IN OUT          float32 in, blocks out io_probe linear
//   IN.gguf X ROWS OUT     quantized_linear of every matrix with the same X
// An Error is printed and its exit code returned.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/io/safetensors.h"
#include "espalier/kernels/gguf_quants/gguf_dot.h"

namespace espalier {
namespace {

template <class T>
void append(std::ofstream& out, const std::vector<T>& values) {
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
}

std::vector<float> read_floats(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

void copy_safetensors(const std::string& in, const std::string& out) {
  const SafetensorsFile file = SafetensorsFile::open(in);
  std::vector<TensorPlan> plan;
  for (const StoredTensor& tensor : file.tensors())
    plan.push_back({tensor.name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(out, plan, file.metadata());
  for (const StoredTensor& tensor : file.tensors()) writer.append(tensor);
  writer.finish();
}

void copy_gguf(const std::string& in, const std::string& out) {
  const GgufFile file = GgufFile::open(in);
  std::vector<GgufTensorPlan> plan;
  for (const GgufTensor& tensor : file.tensors())
    plan.push_back({tensor.name, tensor.type, tensor.shape});
  GgufWriter writer(out, file.metadata(), plan);
  for (const GgufTensor& tensor : file.tensors()) writer.append(tensor);
  writer.finish();
}

void copy_hf(const std::string& in, const std::string& out, std::uint64_t max_shard_bytes) {
  const HfFolder folder = HfFolder::open(in);
  std::vector<TensorSource> tensors;
  for (const StoredTensor& tensor : folder.tensors()) {
    TensorSource source;
    source.plan = {tensor.name, tensor.dtype, tensor.shape};
    source.stored = tensor;
    tensors.push_back(std::move(source));
  }
  std::filesystem::create_directories(out);
  write_hf_weights(out, tensors, max_shard_bytes);
}

void dequantize_all(const std::string& in, const std::string& out) {
  const GgufFile file = GgufFile::open(in);
  std::ofstream stream(out, std::ios::binary);
  for (const GgufTensor& tensor : file.tensors()) {
    std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
    dequantize(tensor.type, tensor.data, values);
    append(stream, values);
  }
}

void quantize_all(const std::string& type_name, const std::string& in, const std::string& out) {
  const GgufType type = parse_gguf_type(type_name).value();
  const std::vector<float> values = read_floats(in);
  std::vector<std::byte> blocks(
      static_cast<std::size_t>(gguf_bytes(type, static_cast<std::int64_t>(values.size()))));
  quantize(type, values, blocks);
  std::ofstream stream(out, std::ios::binary);
  append(stream, blocks);
}

void linear_all(const std::string& in, const std::string& x_path, std::int64_t rows,
                const std::string& out) {
  const GgufFile file = GgufFile::open(in);
  const std::vector<float> x = read_floats(x_path);
  std::ofstream stream(out, std::ios::binary);
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.shape.size() != 2) continue;
    std::vector<float> y(static_cast<std::size_t>(rows * tensor.shape[0]));
    quantized_linear(tensor.type, tensor.data, tensor.shape[0], tensor.shape[1], x, rows, y);
    append(stream, y);
  }
}

int run(const std::vector<std::string>& words) {
  const std::string verb = words.empty() ? "" : words[0];
  if (verb == "copy-safetensors" && words.size() == 3) {
    copy_safetensors(words[1], words[2]);
  } else if (verb == "copy-gguf" && words.size() == 3) {
    copy_gguf(words[1], words[2]);
  } else if (verb == "copy-hf" && words.size() == 4) {
    copy_hf(words[1], words[2], std::stoull(words[3]));
  } else if (verb == "dequantize" && words.size() == 3) {
    dequantize_all(words[1], words[2]);
  } else if (verb == "quantize" && words.size() == 4) {
    quantize_all(words[1], words[2], words[3]);
  } else if (verb == "linear" && words.size() == 5) {
    linear_all(words[1], words[2], std::stoll(words[3]), words[4]);
  } else {
    std::fprintf(stderr, "error: unknown request; see the head of io_probe.cpp\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  try {
    return espalier::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const espalier::Error& error) {
    std::fprintf(stderr, "%s\n", error.to_string().c_str());
    return error.exit_code();
  }
}
