"""Is a LoRA step of `espalier finetune` at most 0.6 times as long as PEFT's, in at most 0.4 times the 7.9 GB that PEFT takes?

SmolLM2-135M-Instruct, rank 8 on all linear layers, dropout 0.05, batches of 8 x 128 tokens, float32, AdamW. Ours and PEFT in
turn, ROUNDS times; medians of the steps after the first. On a busy machine the CPU seconds of a step are the fairer number
(ours: two runs of different length, the difference over the steps).
Targets: step time ratio <= 0.6, peak memory <= 0.4 x 7.9e9 bytes.
"""

import json
import os
import pathlib
import statistics
import tempfile

import peer_bench as bench

model, corpus = bench.smollm2(), bench.wikitext("valid")
rows, length, batch, steps = 64, 128, 8, int(os.environ.get("STEPS", "6"))


def tune(scratch, text, steps):
    out = pathlib.Path(scratch) / "out"
    done = bench.run([bench.espalier(), "finetune", model, "--mode", "lora", "--rank", 8, "--dropout", "0.05", "--data", text, "--steps", steps,
                      "--batch-size", batch, "--seq-len", length, "--lr", "1e-4", "--lr-decay", "constant", "--clip", 0,
                      "--checkpoint-every", 0, "--out", out, "--overwrite", "--threads", bench.THREADS, "--progress", "none", "--json"])
    result = json.loads(done.pop("stdout"))
    metrics = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [batch * length / row["tokens_per_second"] for row in metrics]
    return {**done, "step_seconds": statistics.median(seconds[1:] or seconds), "losses": [row["loss"] for row in metrics],
            "trainable_parameters": result["trainable_parameters"]}


def measured(scratch, text):
    short, whole = tune(scratch, text, 1), tune(scratch, text, steps)
    return {**whole, "step_cpu_seconds": (whole["cpu_seconds"] - short["cpu_seconds"]) / (steps - 1)}


machine = bench.machine()
results = {"espalier": [], "peft": []}
with tempfile.TemporaryDirectory() as scratch:
    text = pathlib.Path(scratch) / "text.txt"
    text.write_text(corpus.read_text(encoding="utf-8")[: int(rows * length * 4.6)], encoding="utf-8")
    for _ in range(bench.ROUNDS):
        results["espalier"].append(measured(scratch, text))
        done = bench.run([bench.python(), os.path.join(os.path.dirname(__file__), "peft_lora_step.py"), model, text, rows, length, batch, steps])
        results["peft"].append({**done, **json.loads(done.pop("stdout"))})


def column(name, key):
    return bench.summary([row[key] for row in results[name]])


def ratio(key):
    return column("espalier", key)["median"] / column("peft", key)["median"]


wall, memory = ratio("step_seconds"), column("espalier", "peak_rss_bytes")["median"] / 7.9e9
bench.keep("lora_vs_peft", {
    "bench": "lora_vs_peft", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine, "rounds": bench.ROUNDS,
    "workload": f"{steps} steps, batches of {batch} x {length} tokens of wikitext2_valid, rank 8 on all linear layers, dropout 0.05, float32",
    **{name: {key: column(name, key) for key in ("step_seconds", "step_cpu_seconds", "peak_rss_bytes", "trainable_parameters")} for name in results},
    "step_seconds_over_peft": wall, "step_cpu_seconds_over_peft": ratio("step_cpu_seconds"), "peak_rss_over_7.9e9": memory,
    "peak_rss_over_peft": ratio("peak_rss_bytes"), "targets": {"step_seconds_over_peft": "<= 0.6", "peak_rss_over_7.9e9": "<= 0.4"},
    "met": wall <= 0.6 and memory <= 0.4})
