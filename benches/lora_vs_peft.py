"""Is a LoRA step of `espalier finetune` at most 0.6 times as long as PEFT's, in at most 0.4 times the 7.9 GB that PEFT takes?

SmolLM2-135M-Instruct, rank 8 on all linear layers, dropout 0.05, batches of 8 x 128 tokens, float32, AdamW. Ours with exact
products, ours with `--products bf16x3` where the processor has AMX, and PEFT in turn, ROUNDS times; medians of the steps after
the first. On a busy machine the CPU seconds of a step are the fairer number (ours: two runs of different length, the
difference over the steps).
Targets: step time ratio <= 0.6 for the faster of ours, peak memory <= 0.4 x 7.9e9 bytes.
"""

import json
import os
import pathlib
import statistics
import tempfile

import peer_bench as bench

model, corpus = bench.smollm2(), bench.wikitext("valid")
rows, length, batch, steps = 64, 128, 8, int(os.environ.get("STEPS", "6"))


def tune(scratch, text, products, steps):
    out = pathlib.Path(scratch) / "out"
    done = bench.run([bench.espalier(), "finetune", model, "--mode", "lora", "--rank", 8, "--dropout", "0.05", "--data", text, "--steps", steps,
                      "--batch-size", batch, "--seq-len", length, "--lr", "1e-4", "--lr-decay", "constant", "--clip", 0, "--products", products,
                      "--checkpoint-every", 0, "--out", out, "--overwrite", "--threads", bench.THREADS, "--progress", "none", "--json"])
    result = json.loads(done.pop("stdout"))
    metrics = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [batch * length / row["tokens_per_second"] for row in metrics]
    return {**done, "step_seconds": statistics.median(seconds[1:] or seconds), "losses": [row["loss"] for row in metrics],
            "trainable_parameters": result["trainable_parameters"]}


def measured(scratch, text, products):
    short, whole = tune(scratch, text, products, 1), tune(scratch, text, products, steps)
    return {**whole, "step_cpu_seconds": (whole["cpu_seconds"] - short["cpu_seconds"]) / (steps - 1)}


machine = bench.machine()
has_amx = "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text()
ours = {"espalier": "exact", **({"espalier_bf16x3": "bf16x3"} if has_amx else {})}
results = {name: [] for name in [*ours, "peft"]}
with tempfile.TemporaryDirectory() as scratch:
    text = pathlib.Path(scratch) / "text.txt"
    text.write_text(corpus.read_text(encoding="utf-8")[: int(rows * length * 4.6)], encoding="utf-8")
    for _ in range(bench.ROUNDS):
        for name, products in ours.items():
            results[name].append(measured(scratch, text, products))
        done = bench.run([bench.python(), os.path.join(os.path.dirname(__file__), "peft_lora_step.py"), model, text, rows, length, batch, steps])
        results["peft"].append({**done, **json.loads(done.pop("stdout"))})


def column(name, key):
    return bench.summary([row[key] for row in results[name]])


def ratio(name, key):
    return column(name, key)["median"] / column("peft", key)["median"]


difference = None
if has_amx:
    difference = max(abs(a / b - 1) for a, b in zip(results["espalier_bf16x3"][0]["losses"], results["espalier"][0]["losses"]))
wall = {name: ratio(name, "step_seconds") for name in ours}
cpu = {name: ratio(name, "step_cpu_seconds") for name in ours}
memory = max(column(name, "peak_rss_bytes")["median"] for name in ours) / 7.9e9
bench.keep("lora_vs_peft", {
    "bench": "lora_vs_peft", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine, "rounds": bench.ROUNDS,
    "workload": f"{steps} steps, batches of {batch} x {length} tokens of wikitext2_valid, rank 8 on all linear layers, dropout 0.05, float32",
    **{name: {key: column(name, key) for key in ("step_seconds", "step_cpu_seconds", "peak_rss_bytes", "trainable_parameters")} for name in results},
    "step_seconds_over_peft": wall, "step_cpu_seconds_over_peft": cpu, "peak_rss_over_7.9e9": memory,
    "peak_rss_over_peft": {name: ratio(name, "peak_rss_bytes") for name in ours}, "bf16x3_largest_relative_difference_of_losses": difference,
    "targets": {"step_seconds_over_peft of the faster": "<= 0.6", "peak_rss_over_7.9e9": "<= 0.4"},
    "met": min(wall.values()) <= 0.6 and memory <= 0.4})
