"""Perplexity with transformers, the plain way: MODEL TEXT SEGMENTS LENGTH BATCH -> one JSON line. The rival of a bench."""

import json
import math
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text, segments, length, batch = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
started = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(text, encoding="utf-8", newline="") as f:
    start_of_text = f.read(20 * segments * length)
ids = torch.tensor(tokenizer(start_of_text, add_special_tokens=False)["input_ids"][: segments * length]).view(segments, length)
load_seconds = time.perf_counter() - started
with torch.inference_mode():
    model(input_ids=ids[:1], use_cache=False)  # first-call costs are not the question
    started = time.perf_counter()
    total = 0.0
    for part in ids.split(batch):
        logits = model(input_ids=part, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    seconds = time.perf_counter() - started
nll = total / (segments * (length - 1))
print(json.dumps({"perplexity": math.exp(nll), "nll": nll, "seconds": seconds, "tokens_per_second": ids.numel() / seconds, "load_seconds": load_seconds,
                  "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
