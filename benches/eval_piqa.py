"""Is `espalier eval --task piqa` faster than lm-eval's loop over transformers on the same libtorch, with the same scores?

    python benches/eval_piqa.py [--device cuda] [--dtype bfloat16] [--items N]

The first N documents of PIQA (default 200; 0: all), SmolLM2-135M-Instruct as a folder. Both in turn, ROUNDS times; the peer with
each of its batch sizes (32 to 256 on CUDA, 8 to 64 on the CPU, where more only costs memory), the fastest counts. Target: items/s
ratio >= 1 (1.5 on CUDA) with equal acc; with float32 equal acc_norm and log-likelihoods within 1e-4 of their size too. Needs what peer_bench.py says and
ESPALIER_DATA/eval/piqa_valid.jsonl with its labels.
"""

import argparse
import json
import os
import pathlib
import tempfile

import peer_bench as bench

arguments = argparse.ArgumentParser()
arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
arguments.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
arguments.add_argument("--items", type=int, default=200)
asked = arguments.parse_args()

model = bench.smollm2()
data = bench.needed("ESPALIER_DATA", bench.ROOT.parent / "shared" / "data", "real data") / "eval"
tokens = 2048 if asked.device == "cpu" else 8192
sizes = [8, 32, 64] if asked.device == "cpu" else [32, 64, 128, 256]
machine = bench.machine()
rows = {"espalier": [], **{f"lm-eval, batches of {size}": [] for size in sizes}}
likelihoods = {}
with tempfile.TemporaryDirectory() as work:
    samples = pathlib.Path(work) / "samples.jsonl"
    ours = [bench.espalier(), "eval", model, "--task", "piqa", "--data", data, "--limit", asked.items, "--dtype", asked.dtype, "--device", asked.device,
            "--batch-tokens", tokens, "--threads", bench.THREADS, "--samples", samples, "--progress", "none", "--json"]
    rival = [bench.python(), os.path.join(os.path.dirname(__file__), "lm_eval_loop.py"), model, data, asked.items, asked.device, asked.dtype]
    for _ in range(bench.ROUNDS):
        done = bench.run(ours)
        result = json.loads(done.pop("stdout"))
        piqa = result["results"]["piqa"]
        rows["espalier"].append({**done, "acc": piqa["acc"], "acc_norm": piqa["acc_norm"], "items_per_second": piqa["n"] / result["seconds"]})
        documents = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda sample: sample["doc_id"])
        likelihoods["espalier"] = [float(answer[0]) for document in documents for answer in document["filtered_resps"]]
        for size in sizes:
            done = bench.run([*rival, size])
            result = json.loads(done.pop("stdout"))
            likelihoods["peer"] = result.pop("log_likelihoods")
            rows[f"lm-eval, batches of {size}"].append({**done, **result})

assert len(likelihoods["espalier"]) == len(likelihoods["peer"])
difference = max(abs(a - b) / abs(b) for a, b in zip(likelihoods["espalier"], likelihoods["peer"]))


def column(name, key):
    return bench.summary([row[key] for row in rows[name]])


def speed(name):
    return column(name, "items_per_second")["median"]


fastest = max((name for name in rows if name != "espalier"), key=speed)
target = 1.5 if asked.device == "cuda" else 1.0
exact = ["acc", "acc_norm"] if asked.dtype == "float32" else ["acc"]
same = all(row[key] == rows["espalier"][0][key] for row in rows["espalier"] + rows[fastest] for key in exact)
close = asked.dtype != "float32" or difference < 1e-4
bench.keep(f"eval_piqa_{asked.device}_{asked.dtype}", {
    "bench": "eval_piqa", "question": __doc__.strip().splitlines()[0], "machine": machine,
    "workload": f"PIQA, {len(likelihoods['peer']) // 2} documents, {asked.dtype}, {asked.device}, ours in passes of {tokens} tokens",
    **{name: {key: column(name, key) for key in ("items_per_second", "wall_seconds", "cpu_seconds", "peak_rss_bytes", "acc", "acc_norm")} for name in rows},
    "fastest_peer": fastest, "items_per_second_ratio": speed("espalier") / speed(fastest),
    "peak_rss_ratio": column("espalier", "peak_rss_bytes")["median"] / column(fastest, "peak_rss_bytes")["median"],
    "scores_equal": same, "largest_relative_log_likelihood_difference": difference,
    "targets": {"items_per_second_ratio": f">= {target}", "scores_equal": True}, "met": speed("espalier") >= target * speed(fastest) and same and close})
