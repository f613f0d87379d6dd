"""Is the unbiased CKA of all pairs from one product faster than loops over pairs?

55 layers x 256 samples of correlated random features, 64 wide (a pooled ResNet-110), float32. In turn, ROUNDS times: ours (float64
inside), a PyTorch loop that computes three HSIC a pair as published code does, and one that computes Grams and each layer's
own HSIC once. Seconds from features to matrix. Target: >= 10 x the published form, equal matrices to 1e-4.
"""

import json
import os
import subprocess
import tempfile

import peer_bench as bench

LAYERS, SAMPLES, WIDTH, REPEATS = 55, 256, 64, 3
program = bench.needed("ALL_PAIRS_CKA", bench.ROOT / "build" / "benches" / "all_pairs_cka", "the bench program (ninja all_pairs_cka)")
peer = os.path.join(os.path.dirname(__file__), "torch_cka_pairs.py")
make = f"""
import sys, torch
from safetensors.torch import save_file
torch.manual_seed(0)
x, layers = torch.randn({SAMPLES}, {WIDTH}), {{}}
for i in range({LAYERS}):
    x = 0.8 * x + 0.6 * torch.randn({SAMPLES}, {WIDTH})
    layers[f"layer.{{i}}"] = x.clone()
save_file(layers, sys.argv[1])
"""

machine = bench.machine()
rows = {}
with tempfile.TemporaryDirectory() as folder:
    features = os.path.join(folder, "features.safetensors")
    subprocess.run([bench.python(), "-c", make, features], check=True, env=bench.environment())
    commands = {"one_product": [program, features, REPEATS], "pairs": [bench.python(), peer, features, REPEATS, "pairs"],
                "grams": [bench.python(), peer, features, REPEATS, "grams"]}
    for _ in range(bench.ROUNDS):
        for name, command in commands.items():
            rows.setdefault(name, []).append(json.loads(bench.run(command)["stdout"]))

result = {name: {"seconds": bench.summary([s for row in found for s in row["seconds"]])} for name, found in rows.items()}
ours = rows["one_product"][0]["cka"]
for name in ("pairs", "grams"):
    result[name]["largest_difference"] = max(abs(a - b) for left, right in zip(ours, rows[name][0]["cka"]) for a, b in zip(left, right))
speedups = {f"speedup_over_{name}": result[name]["seconds"]["median"] / result["one_product"]["seconds"]["median"] for name in ("pairs", "grams")}
bench.keep("all_pairs_cka", {
    "bench": "all_pairs_cka", "question": __doc__.strip().splitlines()[0], "machine": machine, "rounds": bench.ROUNDS,
    "workload": f"{LAYERS} layers x {SAMPLES} samples x {WIDTH} features, float32, unbiased CKA", **result, **speedups,
    "targets": {"speedup_over_pairs": ">= 10"},
    "met": speedups["speedup_over_pairs"] >= 10 and all(result[name]["largest_difference"] < 1e-4 for name in ("pairs", "grams"))})
