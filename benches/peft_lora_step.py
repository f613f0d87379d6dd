"""Optimizer steps of PEFT LoRA on all linear layers: MODEL TEXT ROWS LENGTH BATCH STEPS -> one JSON line. The rival of a bench."""

import json
import resource
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text, rows, length, batch, steps = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(text, encoding="utf-8", newline="") as f:
    ids = tokenizer(f.read(), add_special_tokens=False)["input_ids"]
ids = torch.tensor(ids[: rows * length]).view(rows, length)
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, bias="none", task_type="CAUSAL_LM",
                                         target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])).train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4)
seconds, cpu_seconds, losses = [], [], []
for step in range(steps):
    part = ids[(step * batch) % rows :][:batch]
    started, cpu_started = time.perf_counter(), time.process_time()
    loss = model(input_ids=part, labels=part, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds.append(time.perf_counter() - started)
    cpu_seconds.append(time.process_time() - cpu_started)
    losses.append(loss.item())
print(json.dumps({"step_seconds": statistics.median(seconds[1:] or seconds), "step_seconds_min": min(seconds),
                  "step_cpu_seconds": statistics.median(cpu_seconds[1:] or cpu_seconds), "loss_first": losses[0], "loss_last": losses[-1],
                  "trainable_parameters": sum(p.numel() for p in parameters), "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
