// Adapters of a whole decoder: where they go, under which names, from and to PEFT folders; NF4
// bases for QLoRA.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/io/peft_folder.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

/// Every linear layer of the blocks in canonical order, with its Hugging Face module name
/// ("model.layers.3.self_attn.q_proj"). Resident models only; the head is not among them.
void for_each_linear(Decoder& model, const std::function<void(const std::string&, Linear&)>& fn);

/// Every tensor of every adapter in canonical order:
/// "model.layers.3.self_attn.q_proj.lora_A.weight",
/// "....lora_B.weight", "....lora_magnitude_vector" (DoRA). The slots are what an optimizer trains.
void for_each_adapter_tensor(Decoder& model,
                             const std::function<void(const std::string&, at::Tensor&)>& fn);

/// Leaf names of the linear layers of a block: default_target_modules() of peft_folder.h, or
/// qkv_proj, o_proj, gate_up_proj and down_proj where they are fused (phi3).
std::vector<std::string> default_target_modules(const DecoderConfig& config);

/// Names of the linear layers that `config` targets, by PEFT's rules. Error(kUsage) when none is.
std::vector<std::string> adapter_targets(Decoder& model, const PeftConfig& config);

/// Gives every targeted layer a fresh adapter (init_low_rank); `masks` serves config.dropout (null:
/// no dropout). Returns the number of layers.
std::int64_t attach_adapters(Decoder& model, const PeftConfig& config, std::uint64_t seed,
                             std::shared_ptr<const DropoutState> masks = nullptr);

/// Puts a saved adapter on `model`: low-rank tensors onto their layers, `modules_to_save` in place
/// of the model's own (an lm_head on a tied model unties it). All problems in one Error(kInput):
/// layers the model does not have (the hint says on how many the adapter was trained), wrong
/// shapes, tensors that belong to nothing, missing halves.
void load_adapters(Decoder& model, const PeftFolder& folder,
                   std::shared_ptr<const DropoutState> masks = nullptr);

void remove_adapters(Decoder& model);

/// One layer's adapter as float32 tensors on `device` (DoRA norms of W are left to the caller).
std::shared_ptr<LowRank> load_low_rank(const PeftModule& module, at::Device device);

/// What write_peft_folder takes: adapter tensors, and `modules_to_save` of `config` from the model
/// ("lm_head.weight"), all float32 on the CPU.
std::map<std::string, at::Tensor> adapter_tensors(Decoder& model, const PeftConfig& config);

/// Turns the weights of all block linears into NF4 on the model's device, layer by layer, and frees
/// the originals; embedding, norms, biases and head stay. Weights that are NF4 in the checkpoint
/// (bitsandbytes folders) are taken as they are. Returns bytes of the block linears before and
/// after.
struct Nf4Summary {
  std::int64_t layers = 0;
  std::uint64_t bytes_before = 0, bytes_after = 0;
};
Nf4Summary quantize_nf4(Decoder& model, const Nf4Options& options, Reporter& reporter,
                        const DecoderCheckpoint* source = nullptr);

/// Decoder with NF4 blocks, quantised as they arrive: the peak is the NF4 model plus one layer in
/// `type`. `summary`, when given, takes the bytes.
Decoder load_nf4_decoder(std::shared_ptr<const DecoderCheckpoint> checkpoint, at::ScalarType type,
                         at::Device device, const Nf4Options& options, Reporter& reporter,
                         Nf4Summary* summary = nullptr);

/// One block of either, which carries the names of layer `layer`.
Nf4Summary quantize_nf4_block(DecoderBlock& block, std::int64_t layer, const Nf4Options& options,
                              at::Device device, const DecoderCheckpoint* source = nullptr);

}  // namespace espalier
