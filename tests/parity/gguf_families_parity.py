"""GGUF files of the families beside llama, written with the gguf package as llama.cpp's converter writes them.

For each family a small random model of transformers goes into GGUF files: in F32, and with Q4_K, Q5_K, Q6_K and Q8_0 tensors mixed as in
published files (K blocks are random but valid: the package dequantises them, it does not make them). Then

- our logits of the file, whole and through the cache, and greedy tokens equal transformers' on the dequantised weights;
- `convert --to hf` makes a folder that transformers loads, logits and tokenizer equal;
- `convert --to gguf` of that model's folder gives the tensors and keys of the package's own file;
- `merge-adapter` into the F32 file equals PEFT's merge (phi3: adapters on the fused projections);
- a pruned file equals the model with the layers taken out in memory; layers keep their kind of attention.

    tests/parity/run.sh gguf_families      or: python tests/parity/gguf_families_parity.py [--only NAME]
"""
import argparse
import copy
import json
import math
import pathlib
import sys
import tempfile

from comparison import BUILD, ESPALIER, TINY, check, checks, espalier, run

try:
    import gguf
    import numpy as np
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
PROBE = BUILD / "tests" / "parity" / "decoder_probe"
Q = gguf.GGMLQuantizationType
TOKENS, NEW_TOKENS, TOLERANCE = 29, 12, 1e-4
# Widths of 256 and 512: rows are whole K blocks.
BASE = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            vocab_size=288, max_position_embeddings=128, rms_norm_eps=1e-6, bos_token_id=285, eos_token_id=286, pad_token_id=287,
            tie_word_embeddings=False)
GEMMA2 = dict(model_type="gemma2", num_hidden_layers=4, sliding_window=7, query_pre_attn_scalar=64, attn_logit_softcapping=3.0,
              final_logit_softcapping=5.0, tie_word_embeddings=True)
GEMMA3 = dict(model_type="gemma3_text", num_hidden_layers=8, sliding_window=7, query_pre_attn_scalar=64, tie_word_embeddings=True,
              rope_parameters=dict(full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
                                   sliding_attention=dict(rope_type="default", rope_theta=10000.0)))
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                short_factor=[1.0 + i / 32 for i in range(24)], long_factor=[1.0 + i / 4 for i in range(24)])
# Layers to remove that keep gemma's pattern, and what else must hold of each family.
CASES = {
    "qwen3": (dict(model_type="qwen3", rope_theta=1e6, tie_word_embeddings=True), [1]),
    "gemma2": (GEMMA2, [1, 2]),
    "gemma3": (GEMMA3, [6, 7]),
    # Of layers 0-7 only 5 sees everything; without 1 every fifth does, which the file then has to say.
    "gemma3-other-period": (GEMMA3, [1]),
    "phi3": (dict(model_type="phi3", rope_theta=10000.0), [1]),
    "phi3-longrope": (dict(model_type="phi3", original_max_position_embeddings=20, rope_parameters=LONGROPE), [0]),
    "olmo2": (dict(model_type="olmo2", rope_theta=5e5), [2]),
}


def random_model(values, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**BASE, **values}), attn_implementation="eager")
    for key, parameter in model.named_parameters():
        noise = torch.randn_like(parameter) * (0.1 if "norm" in key else 1.5 / parameter.shape[-1] ** 0.5)
        # gemma multiplies by 1 + weight.
        parameter.data = 1 + noise if "norm" in key and "gemma" not in values["model_type"] else noise
    return model.float().eval()


def k_blocks(type_, shape, rng):
    """Random valid blocks whose values are about as large as a matrix's usually are: uint8 [rows, bytes]."""
    rows, columns = shape
    blocks = rows * columns // 256
    spread = 1.5 / math.sqrt(columns)

    def half(values):
        return np.asarray(values, dtype=np.float16).reshape(-1, 1).view(np.uint8).reshape(blocks, -1)

    def raw(count):
        return rng.integers(0, 256, (blocks, count), dtype=np.uint8)

    if type_ == Q.Q6_K:
        scales = rng.integers(-30, 31, (blocks, 16)).astype(np.int8).view(np.uint8)
        d = spread / 330 * rng.uniform(0.8, 1.2, blocks)
        parts = [raw(128), raw(64), scales, half(d)]
    else:
        top = 15.5 if type_ == Q.Q5_K else 7.5
        d = spread / (20 * top) * rng.uniform(0.8, 1.2, blocks)
        parts = [half(d), half(d * top), raw(12)] + ([raw(32)] if type_ == Q.Q5_K else []) + [raw(128)]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def quantised_type(name):
    """The mixture of a published Q4_K_M file, with a Q8_0 tensor more."""
    if "token_embd" in name or "attn_v." in name or "ffn_down" in name or name.startswith("output."):
        return Q.Q6_K
    if "attn_qkv" in name or "attn_k." in name:
        return Q.Q5_K
    return Q.Q8_0 if "attn_output" in name else Q.Q4_K


def arch_of(config):
    return {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)


def add_keys(w, config):
    """What llama.cpp's converter writes."""
    arch, rope = arch_of(config), config.rope_parameters
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    if arch in ("qwen3", "gemma2", "gemma3"):
        w.add_key_length(config.head_dim)
        w.add_value_length(config.head_dim)
    if arch == "gemma2":  # its theta is left to the reader
        w.add_attn_logit_softcapping(config.attn_logit_softcapping)
        w.add_final_logit_softcapping(config.final_logit_softcapping)
        w.add_sliding_window(config.sliding_window)
    elif arch == "gemma3":
        w.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        w.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["full_attention"]["factor"])
        w.add_sliding_window(config.sliding_window)
    elif arch == "phi3":
        original = getattr(config, "original_max_position_embeddings", config.max_position_embeddings)
        longrope = rope["rope_type"] == "longrope"
        w.add_rope_scaling_orig_ctx_len(original if longrope else config.max_position_embeddings)
        w.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * config.hidden_size) // config.num_attention_heads)
        w.add_rope_freq_base(rope["rope_theta"])
        w.add_sliding_window(config.sliding_window or 0)
        if longrope:
            scale = config.max_position_embeddings / original
            w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
            w.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32))
            w.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32))
    else:
        w.add_rope_freq_base(rope["rope_theta"])


def add_tokenizer(w, folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    tokens = {id_: token for token, id_ in data["model"]["vocab"].items()}
    special = {entry["id"]: entry["content"] for entry in data["added_tokens"]}
    tokens.update(special)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([tokens[i] for i in range(BASE["vocab_size"])])
    w.add_token_types([3 if i in special else 1 for i in range(BASE["vocab_size"])])
    w.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]])
    w.add_bos_token_id(BASE["bos_token_id"])
    w.add_eos_token_id(BASE["eos_token_id"])
    w.add_pad_token_id(BASE["pad_token_id"])
    w.add_add_bos_token(False)


def write_gguf(model, path, tokenizer, quantise, seed=0):
    """Writes the file and puts what it holds, dequantised, into `model`."""
    config, rng = model.config, np.random.default_rng(seed)
    arch = arch_of(config)
    number = {name: value for value, name in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    w = gguf.GGUFWriter(path, arch)
    add_keys(w, config)
    add_tokenizer(w, tokenizer)
    plus_one = arch.startswith("gemma")
    state = {}
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        data = value.numpy().astype(np.float32)
        if plus_one and key.endswith("norm.weight"):
            w.add_tensor(name, data + np.float32(1))
        elif not quantise or data.ndim == 1:
            w.add_tensor(name, data)
        else:
            type_ = quantised_type(name)
            blocks = gguf.quants.quantize(data, type_) if type_ == Q.Q8_0 else k_blocks(type_, data.shape, rng)
            w.add_tensor(name, blocks, raw_dtype=type_)
            value = torch.from_numpy(gguf.quants.dequantize(blocks, type_).astype(np.float32).reshape(data.shape))
        state[key] = value
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    model.load_state_dict(state, strict=False)
    model.tie_weights()


def theirs(model, ids):
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits.float()
        row = ids[:1]
        full = model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None,
                              pad_token_id=0)
    return logits, full[0, row.shape[1]:]


def compare(what, source, model, ids, folder):
    """Logits, logits through the cache and greedy tokens of a file or folder of ours against `model`."""
    save_file({"ids": ids.contiguous()}, str(folder / "ids.safetensors"))
    run(PROBE, source, folder / "ids.safetensors", folder / "out.safetensors", "float32", NEW_TOKENS)
    ours = load_file(str(folder / "out.safetensors"))
    logits, greedy = theirs(model, ids)
    worst = (ours["logits"] - logits).abs().max().item()
    cached = (ours["cached"] - logits[0]).abs().max().item()
    limit = TOLERANCE * max(1.0, logits.abs().max().item())
    check(worst <= limit and cached <= limit, f"{what}: logits differ by {worst:.3g}, through the cache by {cached:.3g}, allowed {limit:.3g}")
    check(ours["greedy"].tolist() == greedy.tolist(), f"{what}: greedy tokens {ours['greedy'].tolist()} and {greedy.tolist()}")
    return worst


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def without_layers(model, removed):
    model = copy.deepcopy(model)
    kept = [i for i in range(model.config.num_hidden_layers) if i not in removed]
    model.model.layers = torch.nn.ModuleList([model.model.layers[i] for i in kept])
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = i
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[i] for i in kept]
    return model


def compare_folder(what, folder, model, ids, tokenizer):
    loaded = load(folder)
    logits, _ = theirs(model, ids)
    difference = (theirs(loaded, ids)[0] - logits).abs().max().item()
    check(difference <= TOLERANCE, f"{what}: transformers' logits of the folder differ by {difference:.3g}")
    text = "the cats of 12 houses\n  sang"
    check(AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == AutoTokenizer.from_pretrained(tokenizer)(text)["input_ids"], f"{what}: tokenizer")


def compare_adapter(what, file, model, ids, folder, work):
    """An adapter of PEFT's on every projection, merged into the file by us and into the model by PEFT."""
    torch.manual_seed(9)
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear"))
    for key, value in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(value, std=0.05)
    adapted.save_pretrained(folder / "adapter")
    modules = {key.split(".lora_")[0].rsplit(".", 1)[-1] for key in load_file(str(folder / "adapter" / "adapter_model.safetensors"))}
    fused = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    check((modules == fused) == (model.config.model_type == "phi3"), f"{what}: modules {modules}")
    espalier("merge-adapter", file, "--adapter", folder / "adapter", "--out", folder / "merged.gguf")
    compare(what, folder / "merged.gguf", adapted.merge_and_unload().eval(), ids, work)


def contents(path):
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


def same(a, b):
    return abs(a - b) <= 1e-6 * abs(a) if isinstance(a, float) else a == b


def compare_files(what, ours, reference):
    """Every key and tensor of the package's file stands in ours with the same value."""
    our_keys, our_tensors = contents(ours)
    keys, tensors = contents(reference)
    for name, value in keys.items():
        check(name in our_keys, f"{what}: our file lacks {name}")
        check(same(value, our_keys[name]), f"{what}: {name} is {our_keys[name]}, expected {value}")
    check(our_tensors.keys() == tensors.keys(), f"{what}: tensors {sorted(our_tensors.keys() ^ tensors.keys())}")
    for name, tensor in tensors.items():
        check(our_tensors[name].tensor_type == tensor.tensor_type and np.array_equal(our_tensors[name].data, tensor.data), f"{what}: tensor {name}")


def run_case(name, values, removed, seed, work, tokenizer):
    model = random_model(values, seed)
    ids = torch.randint(3, 256, (2, TOKENS), generator=torch.Generator().manual_seed(seed))
    folder = work / name
    model.save_pretrained(folder / "source")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "source" / file).write_bytes((tokenizer / file).read_bytes())

    compare(f"{name}, folder", folder / "source", model, ids, work)
    plain = folder / "f32.gguf"
    write_gguf(model, plain, tokenizer, quantise=False)
    worst = compare(f"{name}, F32 file", plain, model, ids, work)

    compare_adapter(f"{name}, adapter merged into the F32 file", plain, model, ids, folder, work)

    espalier("convert", folder / "source", "--to", "gguf", "--type", "f32", "--out", folder / "ours.gguf")
    compare_files(f"{name}, our F32 file", folder / "ours.gguf", plain)
    compare(f"{name}, our F32 file", folder / "ours.gguf", model, ids, work)
    espalier("convert", plain, "--to", "hf", "--out", folder / "from-f32")
    compare_folder(f"{name}, folder from F32", folder / "from-f32", model, ids, tokenizer)
    espalier("convert", folder / "from-f32", "--to", "gguf", "--out", folder / "again.gguf")
    compare_files(f"{name}, file from the folder from F32", folder / "again.gguf", plain)

    out = folder / "pruned-hf"
    espalier("prune", folder / "source", "--remove", ",".join(map(str, removed)), "--force", "--out", out)
    short = without_layers(model, removed)
    compare(f"{name}, pruned folder", out, short, ids, work)
    compare_folder(f"{name}, pruned folder in transformers", out, short, ids, tokenizer)

    wild = folder / "wild.gguf"
    write_gguf(model, wild, tokenizer, quantise=True, seed=seed)  # changes the model's weights
    compare(f"{name}, K-quants", wild, model, ids, work)
    espalier("convert", wild, "--to", "hf", "--out", folder / "from-wild")
    compare_folder(f"{name}, folder from K-quants", folder / "from-wild", model, ids, tokenizer)
    pruned = folder / "pruned.gguf"
    espalier("prune", wild, "--remove", ",".join(map(str, removed)), "--force", "--out", pruned)
    short = without_layers(model, removed)
    compare(f"{name}, pruned file", pruned, short, ids, work)
    check(contents(pruned)[0][f"{arch_of(model.config)}.block_count"] == len(short.model.layers), f"{name}: layer count of the pruned file")
    types = {tensor.tensor_type for tensor in contents(pruned)[1].values()}
    check({Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.Q8_0} <= types, f"{name}: types of the pruned file {types}")
    espalier("convert", pruned, "--to", "hf", "--out", folder / "pruned-from-wild")
    compare_folder(f"{name}, folder from the pruned file", folder / "pruned-from-wild", short, ids, tokenizer)
    print(f"{name}: equal, logits of the F32 file differ by {worst:.2e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="run one case")
    only = parser.parse_args().only
    for program in (ESPALIER, PROBE, TINY):
        if not program.exists():
            print(f"skipped: {program} is not built")
            return 77
    with tempfile.TemporaryDirectory(prefix="espalier-gguf-families-") as scratch:
        work = pathlib.Path(scratch)
        run(TINY, work / "tokenizer", "--vocab", BASE["vocab_size"])
        for seed, (name, (values, removed)) in enumerate(CASES.items()):
            if only in (None, name):
                run_case(name, values, removed, seed, work, work / "tokenizer")
    print(f"equal: {len(CASES) if only is None else 1} families from and to GGUF (F32, Q4_K, Q5_K, Q6_K, Q8_0), pruned in both forms, {checks()} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
