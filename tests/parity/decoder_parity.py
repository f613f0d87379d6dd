"""Our decoder against transformers: logits, cached logits and greedy tokens of random models of every family.

Each case is a small random model saved by transformers (or rewritten in the older spelling of its config) and run on both
sides: float32 logits within 1e-4, 32 greedy tokens equal, bfloat16 as near to float32 as transformers' bfloat16 is. With a SmolLM2 GGUF
($ESPALIER_SMOLLM2, or a .gguf under .deps/) its logits are compared too.

    tests/parity/run.sh decoder        or: python tests/parity/decoder_parity.py [--only NAME]
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

transformers.logging.set_verbosity_error()
SOURCE = pathlib.Path(os.environ.get("ESPALIER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("ESPALIER_BUILD", SOURCE / "build"))
PROBE = BUILD / "tests" / "parity" / "decoder_probe"
NEW_TOKENS = 32
TOLERANCE = 1e-4        # float32, absolute; logits here are a few units in size
BF16_RATIO = 1.25       # our bfloat16 may stray from float32 by this much more than transformers' does (rms)
BF16_CACHED_RATIO = 1.5  # the same for the one row that goes through the cache

BASE = dict(hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=131, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=None, pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
# Half of each head turns; 41 tokens and 32 more lie beyond the original context of 24, so long_factor counts.
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.5, short_factor=[1.0, 1.1, 1.2, 1.3],
                long_factor=[1.5, 2.0, 4.0, 8.0])
GEMMA3 = dict(full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
              sliding_attention=dict(rope_type="default", rope_theta=10000.0))
CASES = {
    "llama-gqa": dict(model_type="llama"),
    "llama-mha-tied": dict(model_type="llama", num_key_value_heads=4, tie_word_embeddings=True),
    "llama-mqa-biases": dict(model_type="llama", num_key_value_heads=1, attention_bias=True, mlp_bias=True),
    "llama-llama3-rope": dict(model_type="llama", rope_parameters=LLAMA3),
    "llama-linear-rope": dict(model_type="llama", rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "llama-head-dim": dict(model_type="llama", head_dim=24),
    "mistral-window": dict(model_type="mistral", sliding_window=7, num_key_value_heads=2),
    "mistral-no-window": dict(model_type="mistral", sliding_window=None, head_dim=40),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True, rope_theta=1e6),
    "qwen2-window": dict(model_type="qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=2),
    "qwen2-layer-types": dict(model_type="qwen2", use_sliding_window=True, sliding_window=5,
                              layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "smollm3": dict(model_type="smollm3", no_rope_layers=[1, 0, 1]),
    "qwen3": dict(model_type="qwen3", head_dim=24, rope_theta=1e6),
    "qwen3-window-tied": dict(model_type="qwen3", head_dim=16, tie_word_embeddings=True, use_sliding_window=True, sliding_window=7,
                              max_window_layers=1),
    "gemma2": dict(model_type="gemma2", num_hidden_layers=4, head_dim=24, sliding_window=7, query_pre_attn_scalar=20,
                   attn_logit_softcapping=3.0, final_logit_softcapping=4.0),
    "gemma2-layer-types": dict(model_type="gemma2", head_dim=16, sliding_window=7,
                               layer_types=["full_attention", "sliding_attention", "sliding_attention"]),
    "gemma3": dict(model_type="gemma3_text", num_hidden_layers=7, head_dim=24, sliding_window=7, query_pre_attn_scalar=20,
                   rope_parameters=GEMMA3),
    "gemma3-layer-types": dict(model_type="gemma3_text", head_dim=16, sliding_window=7,
                               layer_types=["full_attention", "sliding_attention", "full_attention"]),
    "phi3": dict(model_type="phi3"),
    "phi3-window": dict(model_type="phi3", sliding_window=7),
    "phi3-longrope": dict(model_type="phi3", original_max_position_embeddings=24, rope_parameters=LONGROPE),
    "phi3-longrope-grows": dict(model_type="phi3", original_max_position_embeddings=50, rope_parameters=LONGROPE),  # short, then long
    "olmo2": dict(model_type="olmo2", rope_theta=5e5),
}


def probe(model, ids, dtype, folder):
    save_file({"ids": ids.contiguous()}, str(folder / "ids.safetensors"))
    out = folder / f"out-{dtype}.safetensors"
    result = subprocess.run([PROBE, model, folder / "ids.safetensors", out, dtype, str(NEW_TOKENS)], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"decoder_probe ended with {result.returncode}: {result.stderr.strip()}")
    return load_file(str(out))


def theirs(model, ids):
    with torch.no_grad():
        logits = model(ids).logits.float()
        row = ids[:1]
        full = model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None,
                              pad_token_id=0)
    return logits, full[0, row.shape[1]:]


def compare(name, ours, logits, greedy, tolerance):
    worst = (ours["logits"] - logits).abs().max().item()
    cached = (ours["cached"] - logits[0]).abs().max().item()
    problems = []
    if worst > tolerance:
        problems.append(f"logits differ by {worst:.3g}")
    if cached > tolerance:
        problems.append(f"logits through the cache differ by {cached:.3g}")
    if greedy is not None and ours["greedy"].tolist() != greedy.tolist():
        problems.append(f"greedy tokens differ: {ours['greedy'].tolist()} and {greedy.tolist()}")
    print(f"{name}: max |difference| {worst:.2e}, cached {cached:.2e}, allowed {tolerance:.2e}: {'; '.join(problems) or 'equal'}")
    return not problems


def compare_bf16(name, ours, model, ids, exact):
    def rms(x):
        return x.square().mean().sqrt().item()

    rough, _ = theirs(model.to(torch.bfloat16), ids)
    model.float()
    peer = rms(rough - exact)
    whole, cached = rms(ours["logits"] - exact), rms(ours["cached"] - exact[0])
    good = whole <= BF16_RATIO * peer and cached <= BF16_CACHED_RATIO * peer
    print(f"{name}: rms from float32 {whole:.3g}, cached {cached:.3g}, transformers {peer:.3g}: {'equal' if good else 'too far'}")
    return good


def old_spelling(folder):
    """config.json as transformers 4 wrote it: torch_dtype, rope_theta and rope_scaling."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:  # gemma3: one theta for each kind of layer
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = None if rope["type"] == "default" else {**rope, "rope_type": rope["type"]}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


def random_model(values, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**BASE, **values}), attn_implementation="eager")
    for key, parameter in model.named_parameters():
        spread = 0.1 if "norm" in key or "bias" in key else 2.0 / parameter.shape[-1] ** 0.5
        noise = torch.randn_like(parameter) * spread
        parameter.data = 1 + noise if "norm" in key else noise
    return model.float().eval()


def run_case(name, values, seed):
    good = True
    with tempfile.TemporaryDirectory(prefix="espalier-decoder-") as scratch:
        folder = pathlib.Path(scratch)
        model = random_model(values, seed)
        ids = torch.randint(2, BASE["vocab_size"], (3, 41))
        # One tensor per shard for half of the cases, so that sharded folders are read too.
        model.save_pretrained(folder / "model", max_shard_size="40KB" if seed % 2 else "5GB")
        logits, greedy = theirs(model, ids)
        good &= compare(f"{name} float32", probe(folder / "model", ids, "float32", folder), logits, greedy, TOLERANCE)
        old_spelling(folder / "model")
        good &= compare(f"{name} float32, old config", probe(folder / "model", ids, "float32", folder), logits, greedy, TOLERANCE)
        model.to(torch.float16).save_pretrained(folder / "half")
        half_logits, half_greedy = theirs(AutoModelForCausalLM.from_pretrained(folder / "half", dtype=torch.float32, attn_implementation="eager"), ids)
        good &= compare(f"{name} stored as float16", probe(folder / "half", ids, "float32", folder), half_logits, half_greedy, TOLERANCE)
        # The same weights in bfloat16 on both sides, against themselves in float32.
        model.to(torch.bfloat16).save_pretrained(folder / "bf16")
        model.float()
        exact, _ = theirs(model, ids)
        good &= compare_bf16(f"{name} bfloat16", probe(folder / "bf16", ids, "bfloat16", folder), model, ids, exact)
    return good


def find_smollm2():
    named = os.environ.get("ESPALIER_SMOLLM2")
    found = [pathlib.Path(named)] if named else sorted((SOURCE / ".deps").glob("**/*.gguf"))
    return next((path for path in found if path.is_file()), None)


def run_smollm2(path):
    try:
        model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    except (ImportError, OSError, ValueError) as error:
        print(f"SmolLM2 GGUF: not compared, transformers says: {error}")
        return True
    torch.manual_seed(1)
    ids = torch.randint(3, 49000, (2, 40))
    logits, greedy = theirs(model.eval(), ids)
    with tempfile.TemporaryDirectory(prefix="espalier-decoder-") as scratch:
        # 30 blocks with activations of several thousand: 1e-4 of the largest logit.
        return compare("SmolLM2 GGUF", probe(path, ids, "float32", pathlib.Path(scratch)), logits, greedy, 1e-4 * logits.abs().max().item())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="run one case")
    only = parser.parse_args().only
    if not PROBE.is_file():
        print(f"skipped: {PROBE} is not built (ninja decoder_probe)")
        sys.exit(77)
    results = {name: run_case(name, values, seed) for seed, (name, values) in enumerate(CASES.items()) if only in (None, name)}
    path = find_smollm2()
    if path is None:
        print("SmolLM2 GGUF: not compared, no file ($ESPALIER_SMOLLM2 names one)")
    elif only in (None, "smollm2"):
        results["smollm2"] = run_smollm2(path)
    failed = [name for name, good in results.items() if not good]
    print(f"decoder: {len(results) - len(failed)} of {len(results)} cases equal transformers {transformers.__version__}" + (f"; not: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
