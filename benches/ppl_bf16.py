"""Is perplexity in bfloat16 at least 1.3 times as fast as our own float32 where the processor has bfloat16 units, and how far is
the score?

First 72 x 128 tokens of WikiText-2 test, SmolLM2-135M-Instruct; both types in turn, ROUNDS times.
Target: tokens/s ratio >= 1.3 with avx512_bf16 or AMX; without, the ratio is reported.
"""

import json
import pathlib

import peer_bench as bench

model, text = bench.smollm2(), bench.wikitext("test")
segments, length, batch = 72, 128, 8
flags = pathlib.Path("/proc/cpuinfo").read_text()
units = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]

machine = bench.machine()
rows = {"float32": [], "bfloat16": []}
for _ in range(bench.ROUNDS):
    for name in rows:
        done = bench.run([bench.espalier(), "eval", model, "--task", "ppl", "--text", text, "--seq-len", length, "--max-segments", segments, "--add-bos",
                          "off", "--dtype", name, "--batch-tokens", batch * length, "--threads", bench.THREADS, "--progress", "none", "--json"])
        result = json.loads(done.pop("stdout"))
        rows[name].append({**done, **{key: result["results"]["ppl"][key] for key in ("perplexity", "nll")}, "tokens_per_second": result["tokens_per_second"]})


def column(name, key):
    return bench.summary([row[key] for row in rows[name]])


def ratio(key, over, under):
    return column(over, key)["median"] / column(under, key)["median"]


speed = ratio("tokens_per_second", "bfloat16", "float32")
bench.keep("ppl_bf16", {
    "bench": "ppl_bf16", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine | {"bfloat16_units": units}, "rounds": bench.ROUNDS,
    "workload": f"{segments} x {length} tokens of wikitext2_test, no BOS, batches of {batch}",
    **{name: {key: column(name, key) for key in ("tokens_per_second", "wall_seconds", "cpu_seconds", "peak_rss_bytes", "perplexity", "nll")} for name in rows},
    "tokens_per_second_ratio": speed, "cpu_seconds_ratio": ratio("cpu_seconds", "float32", "bfloat16"),
    "nll_difference": column("bfloat16", "nll")["median"] - column("float32", "nll")["median"],
    "perplexity_ratio": ratio("perplexity", "bfloat16", "float32"), "targets": {"tokens_per_second_ratio": ">= 1.3" if units else "reported"},
    "met": speed >= 1.3 or not units})
