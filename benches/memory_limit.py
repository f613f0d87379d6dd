"""Is a model of twice the allowed memory scored and pruned without the process ever holding more than it was allowed?

A llama of random float32 weights (40 layers of width 1024, SmolLM2's tokenizer, 2.0 GB); the limit is half its bytes. Peak
resident memory of `redundancy --metrics bi,ppl,taylor` and `prune --method bi` under `--memory-limit`, as the kernel counted
it, mapped pages of the file included. The scores must equal those of a run without limit.
Targets: both peaks <= the limit. LAYERS changes the size, SCRATCH the place of the model.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import peer_bench as bench

source, text = bench.smollm2(), bench.wikitext("valid")
layers, width, inner, heads, kv_heads = int(os.environ.get("LAYERS", "40")), 1024, 2816, 16, 4
samples, length, remove = 4, 128, layers // 4

MAKE = """
import json, sys, torch
from safetensors.torch import save_file
out, layers, width, inner, kv, vocab = sys.argv[1], *map(int, sys.argv[2:])
torch.manual_seed(0)
rand = lambda *shape: torch.randn(*shape) * 0.02
where = {}
def save(name, tensors):
    save_file(tensors, out + "/" + name, metadata={"format": "pt"})
    where.update({key: name for key in tensors})
save("outside.safetensors", {"model.embed_tokens.weight": rand(vocab, width), "model.norm.weight": torch.ones(width)})
for i in range(layers):
    p = f"model.layers.{i}."
    save(f"layer-{i:03}.safetensors", {
        p + "self_attn.q_proj.weight": rand(width, width), p + "self_attn.k_proj.weight": rand(kv, width),
        p + "self_attn.v_proj.weight": rand(kv, width), p + "self_attn.o_proj.weight": rand(width, width),
        p + "mlp.gate_proj.weight": rand(inner, width), p + "mlp.up_proj.weight": rand(inner, width), p + "mlp.down_proj.weight": rand(width, inner),
        p + "input_layernorm.weight": torch.ones(width), p + "post_attention_layernorm.weight": torch.ones(width)})
json.dump({"metadata": {}, "weight_map": where}, open(out + "/model.safetensors.index.json", "w"))
"""


def make_model(folder):
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    config |= {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner, "num_attention_heads": heads,
               "num_key_value_heads": kv_heads, "tie_word_embeddings": True, "torch_dtype": "float32"}
    config.pop("head_dim", None)
    (folder / "config.json").write_text(json.dumps(config))
    for file in source.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "vocab", "merges")):
            shutil.copy(file, folder)
    subprocess.run([str(word) for word in (bench.python(), "-c", MAKE, folder, layers, width, inner, width // heads * kv_heads, config["vocab_size"])],
                   check=True, env=bench.environment())


machine = bench.machine()
with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as scratch:
    scratch = pathlib.Path(scratch)
    model = scratch / "model"
    make_model(model)
    size = sum(file.stat().st_size for file in model.iterdir())
    limit = size // 2
    common = ["--calibration", text, "--samples", samples, "--seq-len", length, "--threads", bench.THREADS, "--progress", "none", "--json"]
    score = [bench.espalier(), "redundancy", model, "--metrics", "bi,ppl,taylor", "--count", remove, *common]
    prune = [bench.espalier(), "prune", model, "--method", "bi", "--count", remove, "--out", scratch / "pruned", "--overwrite", *common]
    rows = {}
    for name, command in {"scored": [*score, "--memory-limit", limit], "scored_without_limit": score,
                          "pruned": [*prune, "--memory-limit", limit], "pruned_without_limit": prune}.items():
        done = bench.run(command)
        rows[name] = {**done, "result": json.loads(done.pop("stdout"))}

there, here = (rows[name]["result"]["metrics"] for name in ("scored_without_limit", "scored"))
difference = max(abs(a - b) / max(abs(b), 1e-30) for metric in there for a, b in zip(here[metric], there[metric]))
same = rows["pruned"]["result"]["removed"] == rows["pruned_without_limit"]["result"]["removed"]
peaks = {name: row["peak_rss_bytes"] / limit for name, row in rows.items()}
bench.keep("memory_limit", {
    "bench": "memory_limit", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine, "rounds": 1,
    "workload": f"{layers} layers of width {width}, float32, {samples} x {length} tokens of wikitext2_valid, {remove} layers to remove",
    "model_bytes": size, "limit_bytes": limit,
    **{name: {key: row[key] for key in ("peak_rss_bytes", "wall_seconds", "cpu_seconds")} for name, row in rows.items()},
    "peak_over_limit": peaks, "largest_relative_difference_of_scores": difference, "same_layers_removed": same,
    "targets": {"peak_over_limit of scored and pruned": "<= 1", "same_layers_removed": True},
    "met": peaks["scored"] <= 1 and peaks["pruned"] <= 1 and difference < 1e-4 and same})
