"""Does the frozen-prefix cache make the second epoch of partial tuning at least 1.5 times as fast?

SmolLM2-135M-Instruct, head + final norm + last 3 layers, batches of 8 x 128 tokens, float32, AdamW. Cached run, uncached
run and transformers in turn, ROUNDS times; steps of the second epoch count. Losses of the two runs must be equal.
"""

import json
import os
import pathlib
import statistics
import tempfile

import peer_bench as bench

model, corpus = bench.smollm2(), bench.wikitext("valid")
rows, length, batch, last = int(os.environ.get("ROWS", "32")), 128, 8, 3
rival_steps = int(os.environ.get("RIVAL_STEPS", "4"))


def tune(scratch, text, cache):
    out = pathlib.Path(scratch) / "out"
    done = bench.run([bench.espalier(), "finetune", model, "--mode", "partial", "--last", last, "--data", text, "--epochs", 2, "--batch-size", batch,
                      "--seq-len", length, "--lr", "1e-4", "--lr-decay", "constant", "--prefix-cache", cache, "--checkpoint-every", 0, "--out", out, "--overwrite",
                      "--threads", bench.THREADS, "--progress", "none", "--json"])
    result = json.loads(done.pop("stdout"))
    metrics = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    second = metrics[len(metrics) // 2 :]
    seconds = statistics.median(batch * length / row["tokens_per_second"] for row in second)
    return {**done, "step_seconds": seconds, "steps_per_second": 1 / seconds, "losses": [row["loss"] for row in metrics],
            "prefix_seconds": result["prefix_seconds"], "prefix_cache_bytes": result["prefix_cache_bytes"]}


machine = bench.machine()
results = {"cached": [], "uncached": [], "transformers": []}
with tempfile.TemporaryDirectory() as scratch:
    text = pathlib.Path(scratch) / "text.txt"
    # About 4.2 characters a token: a little more than `rows` rows, the surplus is cut by both programs' row rule.
    text.write_text(corpus.read_text(encoding="utf-8")[: int(rows * length * 4.6)], encoding="utf-8")
    for _ in range(bench.ROUNDS):
        results["cached"].append(tune(scratch, text, "auto"))
        results["uncached"].append(tune(scratch, text, "off"))
        done = bench.run([bench.python(), os.path.join(os.path.dirname(__file__), "transformers_partial_step.py"), model, text, rows, length, batch, last, rival_steps])
        rival = json.loads(done.pop("stdout"))
        results["transformers"].append({**done, "step_seconds": rival["step_seconds"], "steps_per_second": 1 / rival["step_seconds"]})

equal = all(a["losses"] == b["losses"] for a, b in zip(results["cached"], results["uncached"]))


def column(name, key):
    return bench.summary([row[key] for row in results[name]])


speed = {name: column(name, "steps_per_second")["median"] for name in results}
bench.keep("prefix_cache", {
    "bench": "prefix_cache", "question": __doc__.strip().splitlines()[0], "machine": machine,
    "workload": f"two epochs, batches of {batch} x {length} tokens of wikitext2_valid, head + norm + last {last}, float32",
    **{name: {key: column(name, key) for key in ("steps_per_second", "step_seconds", "cpu_seconds", "peak_rss_bytes")} for name in results},
    "prefix_seconds": column("cached", "prefix_seconds"), "prefix_cache_bytes": results["cached"][0]["prefix_cache_bytes"],
    "losses_equal": equal, "steps": len(results["cached"][0]["losses"]),
    "cached_over_uncached": speed["cached"] / speed["uncached"], "cached_over_transformers": speed["cached"] / speed["transformers"],
    "uncached_over_transformers": speed["uncached"] / speed["transformers"], "targets": {"cached_over_uncached": ">= 1.5"},
    "met": equal and speed["cached"] / speed["uncached"] >= 1.5})
