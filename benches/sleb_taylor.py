"""Does the greedy search with shared prefixes give the plain greedy list with half the block runs, and do Taylor scores fit in
the model and one block?

SmolLM2-135M-Instruct, first 10 x 128 tokens of WikiText-2 valid, float32, 7 layers to remove. In turn: `redundancy --metrics sleb`
(shared prefixes, counted), the plain greedy of sleb_vs_plain, and `--metrics taylor,gradnorm` beside `--metrics mag_l1` (which
loads the same model and runs nothing) and a torch.autograd script that holds all gradients.
Targets: equal lists, >= 2 x fewer block runs; peak memory of Taylor above mag_l1's <= one block's gradients, every layer's input
and what one block's forward and backward keep (300 MB at these shapes). The peak is also given against an idle process, the
model's bytes and one block's, and once more sample by sample (`--taylor-per-batch`), where activations count least.
ESPALIER_PLAIN=0 leaves the plain greedy out (about ten times as long as the shared one).
"""

import json
import os

import peer_bench as bench

samples, length, remove = 10, 128, 7
model, text = bench.smollm2(), bench.wikitext("valid")
espalier = bench.espalier()
common = [espalier, "redundancy", model, "--calibration", text, "--samples", samples, "--seq-len", length, "--count", remove,
          "--threads", bench.THREADS, "--progress", "none", "--json"]
commands = {"sleb": [*common, "--metrics", "sleb"], "taylor": [*common, "--metrics", "taylor,gradnorm"],
            "taylor_by_sample": [*common, "--metrics", "taylor", "--taylor-per-batch", "--gradient-batch", 1], "idle": [espalier, "--version"],
            "mag_l1": [espalier, "redundancy", model, "--count", remove, "--threads", bench.THREADS, "--progress", "none", "--json",
                       "--metrics", "mag_l1", "--dtype", "float32"],
            "torch_taylor": [bench.python(), os.path.join(os.path.dirname(__file__), "torch_taylor.py"), model, text, samples, length]}
if os.environ.get("ESPALIER_PLAIN", "1") != "0":
    plain = bench.needed("SLEB_VS_PLAIN", bench.ROOT / "build" / "benches" / "sleb_vs_plain", "the bench program (ninja sleb_vs_plain)")
    commands["sleb_plain"] = [plain, model, text, samples, length, remove]

machine = bench.machine()
rows = {name: [] for name in commands}
for _ in range(bench.ROUNDS):
    for name, command in commands.items():
        if name == "sleb_plain" and rows[name]:
            continue
        done = bench.run(command)
        text_out = done.pop("stdout")
        rows[name].append({**done, "result": json.loads(text_out) if name != "idle" else {}})

result = {name: {key: bench.summary([row[key] for row in rows[name]]) for key in ("wall_seconds", "cpu_seconds", "peak_rss_bytes") if key in rows[name][0]}
          for name in rows}
sleb = rows["sleb"][0]["result"]["sleb"]
result["sleb"] |= sleb
ratio = sleb["plain_forwards"] / sleb["block_forwards"]
same = None
if "sleb_plain" in rows:
    there = rows["sleb_plain"][0]["result"]
    result["sleb_plain"] |= there
    same = there["removed"] == sleb["removed"]
taylor, rival = rows["taylor"][0]["result"]["metrics"]["taylor"], rows["torch_taylor"][0]["result"]["taylor"]
difference = max(abs(a / b - 1) for a, b in zip(taylor, rival))
peak = lambda name: bench.summary([row["peak_rss_bytes"] for row in rows[name]])["median"]
extra = peak("taylor") - peak("mag_l1")
facts = json.loads(bench.run([espalier, "inspect", model, "--json"])["stdout"])
model_bytes, block_bytes = 4 * facts["parameters"], 4 * facts["parameters_per_layer"]
allowed = peak("idle") + model_bytes + block_bytes
bench.keep("sleb_taylor", {
    "bench": "sleb_taylor", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine, "rounds": bench.ROUNDS,
    "workload": f"{samples} x {length} tokens of wikitext2_valid, float32, no BOS, {remove} layers", **result,
    "block_run_ratio": ratio, "same_list_as_plain": same, "taylor_largest_relative_difference": difference,
    "taylor_bytes_above_the_model": extra, "model_bytes": model_bytes, "block_bytes": block_bytes,
    "taylor_peak_over_idle_model_and_block": peak("taylor") / allowed, "taylor_by_sample_peak_over_idle_model_and_block": peak("taylor_by_sample") / allowed, "targets": {"block_run_ratio": ">= 2", "taylor_bytes_above_the_model": "<= 300e6"},
    "met": ratio >= 2 and same is not False and difference < 1e-3 and extra <= 300e6})
