"""Adapters and NF4 against PEFT and bitsandbytes, on tiny random models.

LoRA, rsLoRA, DoRA, rank patterns and modules_to_save in both directions: logits to 1e-4, the gradients of one step, and
`merge-adapter` against PEFT's merge. NF4 with and without double quantisation: bytes, scales and values bit for bit, and a
folder that transformers quantised. Exit codes: 0 equal, 77 a package or program is missing, 1 not equal.
"""

import json
import pathlib
import sys
import tempfile

from comparison import BUILD, ESPALIER, check, checks, run

try:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, Qwen2Config
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs torch, transformers, peft, safetensors")
    sys.exit(77)

PROBE = BUILD / "tests" / "parity" / "adapter_probe"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "lora": dict(r=4, lora_alpha=8, target_modules=ALL),
    "rslora": dict(r=9, lora_alpha=8, target_modules="all-linear", use_rslora=True),
    "dora": dict(r=4, lora_alpha=8, target_modules=ALL, use_dora=True),
    "patterns": dict(r=4, lora_alpha=8, target_modules=["q_proj", "mlp.up_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2, r"layers\.0\..*up_proj": 6},
                     alpha_pattern={"up_proj": 3}, exclude_modules=["layers.2.mlp.up_proj"]),
    "regex": dict(r=3, lora_alpha=6, target_modules=r".*layers\.(0|2)\.(self_attn|mlp)\.(v_proj|down_proj)"),
    "layers": dict(r=2, lora_alpha=2, target_modules=["o_proj"], layers_to_transform=[1], layers_pattern="layers"),
    "head": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"]),
}

FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
PHI3_CASES = {
    "lora": dict(r=4, lora_alpha=8, target_modules=FUSED),
    "rslora": dict(r=9, lora_alpha=8, target_modules="all-linear", use_rslora=True),
    "dora": dict(r=4, lora_alpha=8, target_modules=FUSED, use_dora=True),
    "patterns": dict(r=4, lora_alpha=8, target_modules=["qkv_proj", "mlp.gate_up_proj"], rank_pattern={"layers.1.self_attn.qkv_proj": 2},
                     alpha_pattern={"gate_up_proj": 3}, exclude_modules=["layers.2.mlp.gate_up_proj"]),
}


def close(ours, theirs, tolerance, what):
    difference = (ours.float() - theirs.float()).abs().max().item()
    check(ours.shape == theirs.shape and difference <= tolerance, f"{what}: differ by {difference}")


def make_bases(work):
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=130,
                 max_position_embeddings=64, initializer_range=0.15)
    bases = {}
    configs = {"llama": LlamaConfig(**sizes), "qwen2": Qwen2Config(**sizes, tie_word_embeddings=True), "phi3": Phi3Config(**sizes, pad_token_id=0)}
    for name, config in configs.items():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for key, value in model.named_parameters():
            if key.endswith("bias"):
                torch.nn.init.normal_(value, std=0.1)
        model.save_pretrained(work / name)
        bases[name] = work / name
    return bases


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def loss_of(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()), logits


def theirs_through_us(work, base, name, options, ids, ids_file):
    what = f"{base.name} {name}, PEFT's adapter"
    torch.manual_seed(1)
    model = get_peft_model(base_model(base), LoraConfig(task_type="CAUSAL_LM", **options))
    for key, value in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(value, std=0.05)
        if "magnitude" in key:
            value.data.mul_(torch.rand_like(value) + 0.5)
        if "lm_head" in key and value.requires_grad:
            value.data.mul_(1.05)
    adapter, out = work / f"{base.name}-{name}", work / "out.safetensors"
    model.save_pretrained(adapter)
    loss, logits = loss_of(model.train(), ids)
    loss.backward()
    run(PROBE, "load", base, adapter, ids_file, out)
    ours = load_file(out)
    close(ours["logits"], logits.detach(), 1e-4, f"logits of {what}")
    check(abs(ours["loss"].item() - loss.item()) < 1e-5, f"loss of {what}")
    compared = 0
    for key, value in model.named_parameters():
        if "lora_" not in key:
            continue
        mine = key.removeprefix("base_model.model.").replace(".default", "")
        mine = mine.removesuffix(".weight") if "magnitude" in mine else mine
        scale = max(value.grad.abs().max().item(), 1e-6)
        close(ours["grad." + mine] / scale, value.grad / scale, 2e-3, f"gradient {mine} of {what}")
        compared += 1
    check(compared == sum(k.startswith("grad.") for k in ours), f"number of gradients of {what}")

    merged = work / f"{base.name}-{name}-merged"
    result = json.loads(run(ESPALIER, "merge-adapter", base, "--adapter", adapter, "--out", merged, "--json", "--progress", "none"))
    check(result["adapter_tensors"] == len(load_file(adapter / "adapter_model.safetensors")) and result["left_out"] == 0, f"used tensors of {what}")
    with torch.inference_mode():
        close(base_model(merged)(input_ids=ids).logits, logits.detach(), 1e-4, f"merged logits of {what}")
        rival = model.merge_and_unload().state_dict()
    for key, value in base_model(merged).state_dict().items():
        close(value, rival[key], 1e-5, f"merged {key} of {what}")


def ours_through_them(work, base, name, options, ids, ids_file):
    what = f"{base.name} {name}, our adapter"
    config, adapter, out = work / "config.json", work / f"{base.name}-{name}-ours", work / "out.safetensors"
    adapter.mkdir()
    config.write_text(json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), **options}))
    run(PROBE, "make", base, config, ids_file, out, adapter)
    with torch.inference_mode():
        logits = PeftModel.from_pretrained(base_model(base), adapter).eval()(input_ids=ids).logits
    close(load_file(out)["logits"], logits, 1e-4, f"logits of {what}")
    # PEFT reads, writes and reads again: every tensor of ours has a place.
    again = work / f"{base.name}-{name}-again"
    PeftModel.from_pretrained(base_model(base), adapter).save_pretrained(again)
    mine, theirs = load_file(adapter / "adapter_model.safetensors"), load_file(again / "adapter_model.safetensors")
    check(mine.keys() == theirs.keys(), f"names of {what}: {sorted(mine.keys() ^ theirs.keys())[:4]}")
    check(all(torch.equal(mine[key], theirs[key]) for key in mine), f"tensors of {what}")


def compare_nf4(work):
    import bitsandbytes.functional as bnb

    torch.manual_seed(2)
    matrices = {
        "normal": torch.randn(512, 256), "small": torch.randn(64, 96) * 1e-3, "heavy": torch.randn(320, 64) ** 3,
        "bf16": torch.randn(128, 256).bfloat16(), "fp16": torch.randn(128, 128).half(), "short": torch.randn(33, 50),
        "uniform": torch.rand(256, 192) - 0.5, "many": torch.randn(1024, 320),
    }
    save_file(matrices, work / "matrices.safetensors")
    run(PROBE, "nf4", work / "matrices.safetensors", work / "quantised.safetensors")
    ours = load_file(work / "quantised.safetensors")
    for name, matrix in matrices.items():
        for nested in (False, True):
            prefix = f"{name}.{'nested' if nested else 'plain'}."
            packed, state = bnb.quantize_4bit(matrix, blocksize=64, quant_type="nf4", compress_statistics=nested)
            check(torch.equal(ours[prefix + "packed"], packed.flatten()), f"nibbles of {prefix}")
            check(torch.equal(ours[prefix + "absmax"], state.absmax), f"absmax of {prefix}")
            if nested:
                check(torch.equal(ours[prefix + "nested_absmax"], state.state2.absmax), f"nested absmax of {prefix}")
                check(torch.equal(ours[prefix + "nested_map"], state.state2.code), f"nested map of {prefix}")
                check(ours[prefix + "nested_offset"].item() == state.offset.item(), f"offset of {prefix}")
            for dtype in (torch.float32, torch.bfloat16):
                # As one row: bitsandbytes' AVX-512 kernel counts blocks from the start of each row, which is wrong where
                # rows are no multiple of 64 long (its other kernels, and ours, count through the matrix).
                state.dtype, state.shape = dtype, torch.Size([1, matrix.numel()])
                values = bnb.dequantize_4bit(packed, state).reshape(matrix.shape)
                check(torch.equal(ours[prefix + str(dtype).removeprefix("torch.")], values), f"{dtype} values of {prefix}")


def compare_bnb_folder(work, base, ids, ids_file):
    from transformers import BitsAndBytesConfig

    for nested in (False, True):
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested, bnb_4bit_compute_dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=config, device_map="cpu")
        folder = work / f"{base.name}-bnb-{nested}"
        model.save_pretrained(folder)
        model.train()  # no dropout here; in eval mode bitsandbytes computes in bfloat16 where the CPU has it
        with torch.inference_mode():
            logits = model(input_ids=ids).logits
        run(PROBE, "logits", folder, ids_file, work / "out.safetensors")
        close(load_file(work / "out.safetensors")["logits"], logits, 1e-3, f"logits of a bitsandbytes folder, nested {nested}")


def main():
    for program in (ESPALIER, PROBE):
        if not program.exists():
            print(f"skipped: {program} is not built")
            return 77
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        ids = torch.randint(0, 130, (2, 24), generator=torch.Generator().manual_seed(3))
        ids_file = work / "ids.safetensors"
        save_file({"ids": ids}, ids_file)
        bases = make_bases(work)
        for base in bases.values():
            for name, options in (PHI3_CASES if base.name == "phi3" else CASES).items():
                theirs_through_us(work, base, name, options, ids, ids_file)
                ours_through_them(work, base, name, options, ids, ids_file)
        try:
            import bitsandbytes  # noqa: F401
        except ImportError as error:
            print(f"skipped: {error}; the comparison with PEFT was equal ({checks()} checks)")
            return 77
        compare_nf4(work)
        compare_bnb_folder(work, bases["llama"], ids, ids_file)
    print(f"equal: {len(CASES)} kinds of adapters on llama and qwen2, {len(PHI3_CASES)} on phi3's fused projections, both ways and merged, NF4 bit for bit, {checks()} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
