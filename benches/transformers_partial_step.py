"""Optimizer steps of head + final norm + last k layers with transformers, no prefix cache: MODEL TEXT ROWS LENGTH BATCH LAST STEPS -> one JSON line."""

import json
import resource
import statistics
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text, rows, length, batch, last, steps = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:8])
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(text, encoding="utf-8", newline="") as f:
    ids = tokenizer(f.read(), add_special_tokens=False)["input_ids"]
ids = torch.tensor(ids[: rows * length]).view(rows, length)
model.requires_grad_(False)
model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
for module in [model.lm_head, model.model.norm, *model.model.layers[len(model.model.layers) - last :]]:
    module.requires_grad_(True)
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
seconds, losses = [], []
for step in range(steps):
    part = ids[(step * batch) % rows :][:batch]
    started = time.perf_counter()
    loss = model(input_ids=part, labels=part, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds.append(time.perf_counter() - started)
    losses.append(loss.item())
print(json.dumps({"step_seconds": statistics.median(seconds[1:] or seconds), "loss_first": losses[0], "loss_last": losses[-1],
                  "trainable_parameters": sum(p.numel() for p in parameters), "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
