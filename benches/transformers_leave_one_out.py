"""Leave-one-out perplexities with transformers, one whole forward per candidate: MODEL TEXT SAMPLES LENGTH -> one JSON line.
The rival of sweep_vs_naive: what scripts for this job do today."""

import json
import math
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text, samples, length = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5])
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
with open(text, encoding="utf-8", newline="") as f:
    start_of_text = f.read(20 * samples * length)
ids = torch.tensor(AutoTokenizer.from_pretrained(folder)(start_of_text, add_special_tokens=False)["input_ids"][: samples * length]).view(samples, length)
layers = model.model.layers
with torch.inference_mode():
    model(input_ids=ids[:1], use_cache=False)  # first-call costs are not the question
    started, perplexities = time.perf_counter(), []
    for skipped in range(len(layers)):
        model.model.layers = torch.nn.ModuleList([layer for i, layer in enumerate(layers) if i != skipped])
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
        perplexities.append(math.exp(nll / (samples * (length - 1))))
    seconds = time.perf_counter() - started
print(json.dumps({"ppl": perplexities, "seconds": seconds, "block_forwards": len(layers) * (len(layers) - 1),
                  "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
