"""Healing on one GPU, ours and PEFT/transformers in one run: tokens/s of an optimizer step and peak memory.

    python benches/heal_gpu.py ESPALIER MODEL OUT.json      MODEL: SmolLM2-135M as .gguf or folder

Cases: LoRA r 8 on all linears (16 x 256), partial (head, norm, last 3; 16 x 256) with and without the prefix cache, and
LoRA on a Llama of 1.4 B parameters with random weights (8 x 1024). bfloat16. Ours is the program as users run it; a
step's rate comes from its metrics file, the median after the first ten steps. Peers: eager and torch.compile, median of
ten steps after four. Needs torch, transformers and peft.
"""
import csv
import gc
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ESPALIER, MODEL, OUT = sys.argv[1:4]
WORK = os.environ.get("BENCH_WORK", "heal_gpu_work")
SMOL = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True)
LARGE = dict(vocab_size=49152, hidden_size=2048, intermediate_size=5632, num_hidden_layers=24, num_attention_heads=16,
             num_key_value_heads=16, tie_word_embeddings=False)
results = []


def record(**row):
    results.append(row)
    print(json.dumps(row), flush=True)
    with open(OUT, "w") as f:
        json.dump(dict(device=torch.cuda.get_device_name(), torch=torch.__version__, results=results), f, indent=1)


def training_text(path):
    with open(path, "w") as out:
        for name in sorted(glob.glob("docs/**/*.md", recursive=True) + glob.glob("espalier/**/*.cpp", recursive=True)):
            out.write(open(name, errors="replace").read())


def ours(case, model, batch, seq, steps, *flags):
    out = os.path.join(WORK, "out")
    shutil.rmtree(out, ignore_errors=True)
    command = [ESPALIER, "finetune", model, "--data", os.path.join(WORK, "text.txt"), "--format", "text", "--seq-len", str(seq),
               "--batch-size", str(batch), "--steps", str(steps), "--dtype", "bfloat16", "--device", "cuda", "--lr", "1e-4",
               "--checkpoint-every", "0", "--json", "--progress", "none", "--out", out, *flags]
    started = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        record(program="espalier", case=case, error=done.stderr[-600:])
        return
    document = json.loads(done.stdout)
    with open(os.path.join(out, "run", "metrics.csv")) as f:
        rates = [float(r["tokens_per_second"]) for r in csv.DictReader(f) if r["tokens_per_second"]]
    warned = [line for line in done.stderr.splitlines() if "captur" in line]
    record(program="espalier", case=case, tokens_per_s=round(statistics.median(rates[10:])), first=round(rates[0]),
           peak_gib=round(document["peak_device_bytes"] / 2**30, 2), wall_s=round(time.time() - started, 1),
           loss_first=document["loss_first"], loss_last=document["loss_last"], prefix_seconds=document["prefix_seconds"], notes=warned)
    shutil.rmtree(out, ignore_errors=True)


def peer(case, cfg, mode, batch, seq, compiled):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    with torch.device("cuda"):
        m = LlamaForCausalLM(LlamaConfig(**cfg, max_position_embeddings=4096, attn_implementation="sdpa", use_cache=False)).to(torch.bfloat16)
    if mode == "lora":
        from peft import LoraConfig, get_peft_model
        m = get_peft_model(m, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
    else:
        m.requires_grad_(False)
        m.lm_head.weight = torch.nn.Parameter(m.lm_head.weight.detach().clone())
        for p in [*m.model.norm.parameters(), m.lm_head.weight, *(p for b in m.model.layers[-3:] for p in b.parameters())]:
            p.requires_grad_(True)
    f = torch.compile(m) if compiled else m
    opt = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-5, fused=True)
    ids = torch.randint(0, cfg["vocab_size"], (batch, seq), device="cuda")
    times = []
    for _ in range(14):
        torch.cuda.synchronize()
        t = time.perf_counter()
        f(input_ids=ids, labels=ids).loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - t)
    step = statistics.median(times[4:])
    record(program="transformers + peft" if mode == "lora" else "transformers", case=case, compiled=compiled,
           tokens_per_s=round(batch * seq / step), peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2))
    del m, f, opt
    gc.collect()
    torch._dynamo.reset()


def large_model(folder, source):
    """Random weights of the large shape beside the small model's tokenizer."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json", "run"), dirs_exist_ok=True)
    with torch.device("cuda"):
        m = LlamaForCausalLM(LlamaConfig(**LARGE, max_position_embeddings=4096)).to(torch.bfloat16)
    m.save_pretrained(folder)
    del m
    gc.collect()
    torch.cuda.empty_cache()


def main():
    os.makedirs(WORK, exist_ok=True)
    training_text(os.path.join(WORK, "text.txt"))
    small, large = os.path.join(WORK, "small"), os.path.join(WORK, "large")
    if not os.path.exists(small):
        subprocess.run([ESPALIER, "convert", MODEL, "--to", "hf", "--type", "bf16", "--out", small], check=True)
    lora, partial = "LoRA 135M 16x256", "partial-3 135M 16x256"
    ours(lora, small, 16, 256, 60, "--mode", "lora")
    ours(lora + ", no graph", small, 16, 256, 40, "--mode", "lora", "--cuda-graph", "off")
    ours(partial + ", no cache", small, 16, 256, 60, "--mode", "partial", "--prefix-cache", "off")
    ours(partial + ", cache", small, 16, 256, 200, "--mode", "partial")
    ours(partial + ", cache, no graph", small, 16, 256, 200, "--mode", "partial", "--cuda-graph", "off")
    for compiled in (False, True):
        peer(lora, SMOL, "lora", 16, 256, compiled)
        peer(partial, SMOL, "partial", 16, 256, compiled)
    large_model(large, small)
    ours("LoRA 1.4B 8x1024", large, 8, 1024, 24, "--mode", "lora")
    peer("LoRA 1.4B 8x1024", LARGE, "lora", 8, 1024, False)
    shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
