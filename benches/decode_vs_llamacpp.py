"""Does decoding the Q4_1 file reach llama.cpp's tokens per second on the same threads?

SmolLM2-135M-Instruct's GGUF, 64 greedy tokens, 1 and 2 threads, both programs in turn, ROUNDS times; ours also from the weights
dequantised into memory (the folder made of the same file), which must give the same tokens.
A stretch: the ratio is reported either way, with the instruction sets that the llama.cpp at hand was built for.
ESPALIER_GGUF: the file; PARITY_PYTHON needs llama-cpp-python or xllamacpp.
"""

import json
import os

import peer_bench as bench

folder = bench.smollm2()
gguf = bench.needed("ESPALIER_GGUF", bench.ROOT / ".deps" / "demo" / "smollm2-135m-instruct.gguf", "SmolLM2-135M-Instruct as Q4_1")
prompt, tokens, threads = "The history of Rome begins with", 64, (1, 2)


def ours(model, count):
    done = bench.run([bench.espalier(), "generate", model, "--prompt", prompt, "--greedy", "--ignore-eos", "--max-new-tokens", tokens, "--threads", count,
                      "--progress", "none", "--json"])
    result = json.loads(done.pop("stdout"))
    return {**done, "tokens_per_second": result["tokens_per_second"], "token_ids": result["token_ids"], "text": result["text"]}


def rival(count):
    done = bench.run([bench.python(), os.path.join(os.path.dirname(__file__), "llamacpp_decode.py"), gguf, prompt, tokens, count], missing=77)
    if done is None:
        bench.skip("llama.cpp: neither llama-cpp-python nor xllamacpp is there")
    return {**done, **json.loads(done.pop("stdout").strip().splitlines()[-1])}


machine = bench.machine()
rows = {}
for _ in range(bench.ROUNDS):
    for count in threads:
        for name, run in (("espalier", lambda: ours(gguf, count)), ("espalier_dequantised", lambda: ours(folder, count)), ("llama_cpp", lambda: rival(count))):
            rows.setdefault(f"{name}_{count}", []).append(run())


def column(name, key):
    return bench.summary([row[key] for row in rows[name]])


ratio = {count: column(f"espalier_{count}", "tokens_per_second")["median"] / column(f"llama_cpp_{count}", "tokens_per_second")["median"] for count in threads}
same = all(a["token_ids"] == b["token_ids"] for count in threads for a, b in zip(rows[f"espalier_{count}"], rows[f"espalier_dequantised_{count}"]))
peer = rows["llama_cpp_1"][0]
bench.keep("decode_vs_llamacpp", {
    "bench": "decode_vs_llamacpp", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine, "rounds": bench.ROUNDS,
    "workload": f"{tokens} greedy tokens after 6, Q4_1 file (embedding and head Q8_0)", "llama_cpp": {key: peer[key] for key in ("version", "system")},
    **{name: {key: column(name, key) for key in ("tokens_per_second", "wall_seconds", "cpu_seconds", "peak_rss_bytes")} for name in rows},
    "tokens_per_second_over_llama_cpp": ratio, "same_tokens_as_dequantised": same, "same_text_as_llama_cpp": rows["espalier_1"][0]["text"] == peer["text"],
    "targets": {"tokens_per_second_over_llama_cpp": ">= 1, a stretch", "same_tokens_as_dequantised": True},
    "met": min(ratio.values()) >= 1 and same})
