"""Is `espalier eval --task ppl` at least as fast as transformers on the same libtorch, in less memory?

First 24 x 128 tokens of WikiText-2 test, SmolLM2-135M-Instruct, float32. Both programs run in turn, ROUNDS times.
Targets: tokens/s ratio >= 1, peak memory ratio <= 0.8.
"""

import json
import os

import peer_bench as bench

model, text = bench.smollm2(), bench.wikitext("test")
segments, length, batch = 24, 128, 8
ours_command = [bench.espalier(), "eval", model, "--task", "ppl", "--text", text, "--seq-len", length, "--max-segments", segments, "--add-bos", "off",
                "--dtype", "float32", "--batch-tokens", batch * length, "--threads", bench.THREADS, "--progress", "none", "--json"]
rival_command = [bench.python(), os.path.join(os.path.dirname(__file__), "transformers_ppl.py"), model, text, segments, length, batch]

machine = bench.machine()
rows = {"espalier": [], "transformers": []}
for _ in range(bench.ROUNDS):
    done = bench.run(ours_command)
    result = json.loads(done.pop("stdout"))
    rows["espalier"].append({**done, "perplexity": result["results"]["ppl"]["perplexity"], "tokens_per_second": result["tokens_per_second"]})
    done = bench.run(rival_command)
    result = json.loads(done.pop("stdout"))
    rows["transformers"].append({**done, "perplexity": result["perplexity"], "tokens_per_second": result["tokens_per_second"]})

def column(name, key):
    return bench.summary([row[key] for row in rows[name]])

speed = column("espalier", "tokens_per_second")["median"] / column("transformers", "tokens_per_second")["median"]
memory = column("espalier", "peak_rss_bytes")["median"] / column("transformers", "peak_rss_bytes")["median"]
bench.keep("ppl_vs_transformers", {
    "bench": "ppl_vs_transformers", "question": __doc__.strip().splitlines()[0], "machine": machine,
    "workload": f"{segments} x {length} tokens of wikitext2_test, float32, no BOS, batches of {batch}",
    **{name: {key: column(name, key) for key in ("tokens_per_second", "wall_seconds", "cpu_seconds", "peak_rss_bytes", "perplexity")} for name in rows},
    "tokens_per_second_ratio": speed, "peak_rss_ratio": memory, "targets": {"tokens_per_second_ratio": ">= 1", "peak_rss_ratio": "<= 0.8"},
    "met": speed >= 1 and memory <= 0.8})
