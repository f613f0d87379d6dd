"""`finetune` and `eval --task ppl` against transformers and torch.optim: same tiny weights, same rows, same schedule.

Every batch is the whole data, so that the order of rows does not matter. Compared: the loss of each step, the weights at
the end (as transformers loads our output folder), the untouched tensors, and perplexities with and without stride and BOS.
Exit codes: 0 equal, 77 a package or program is missing, 1 not equal.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

from comparison import ESPALIER, TINY, check, checks, espalier

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs torch, transformers, safetensors")
    sys.exit(77)

LENGTH, STEPS, WARMUP, RATE = 32, 12, 3, 2e-3


def read_ids(folder, text):
    with open(text, encoding="utf-8", newline="") as f:
        return AutoTokenizer.from_pretrained(folder)(f.read(), add_special_tokens=False)["input_ids"]


def rival_training(folder, rows, mode, last, decay, weight_decay):
    """Losses per step and the trained model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    if mode == "partial":
        model.requires_grad_(False)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        for module in [model.lm_head, model.model.norm, *list(model.model.layers)[len(model.model.layers) - last :]]:
            module.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
              {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    scheduler = get_scheduler(names[decay], optimizer, num_warmup_steps=WARMUP, num_training_steps=STEPS)
    losses = []
    for _ in range(STEPS):
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses, model.eval()


def compare_training(work, folder, text, mode, last, decay, weight_decay):
    ids = read_ids(folder, text)
    rows = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    what = f"{folder.name}, {mode}, last {last}, {decay}"
    out = work / f"out-{folder.name}-{mode}-{last}-{decay}"
    options = ["--mode", mode, "--last", last] if mode == "partial" else ["--mode", mode]
    result = espalier("finetune", folder, *options, "--data", text, "--steps", STEPS, "--batch-size", len(rows), "--seq-len", LENGTH, "--lr", RATE,
                      "--warmup", WARMUP, "--lr-decay", decay, "--weight-decay", weight_decay, "--out", out)
    losses, rival = rival_training(folder, rows, mode, last, decay, weight_decay)
    ours = [json.loads(line)["loss"] for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    check(len(ours) == STEPS == result["steps"], f"number of steps of {what}")
    for step, (a, b) in enumerate(zip(ours, losses)):
        check(abs(a - b) <= 2e-4 * abs(b), f"loss of step {step + 1} of {what}: {a} here, {b} there")
    check(ours[-1] < ours[0] - 0.1, f"{what} learns")
    check(result["trainable_parameters"] == sum(p.numel() for p in rival.parameters() if p.requires_grad), f"trainable parameters of {what}")
    reloaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        a, b = reloaded(input_ids=rows[:4]).logits, rival(input_ids=rows[:4]).logits
    check((a - b).abs().max().item() <= 5e-3, f"logits of {what}: differ by {(a - b).abs().max().item()}")
    if mode == "partial":
        before, after = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors")
        frozen = [n for n in before if n.startswith("model.layers.0.") or n == "model.embed_tokens.weight"]
        check(frozen and all(torch.equal(before[n], after[n]) for n in frozen), f"frozen tensors of {what}")
        check("lm_head.weight" in after and not reloaded.config.tie_word_embeddings, f"untied head of {what}")


def rival_perplexity(folder, ids, length, stride, bos):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    front = [bos] if bos is not None else []
    total, count, scored = 0.0, 0, 0 if front else 1
    starts = range(0, len(ids) - length + 1, length) if stride == 0 else range(0, len(ids), stride)
    for begin in starts:
        end = min(begin + length, len(ids))
        first = begin + (0 if front else 1) if stride == 0 else max(scored, begin + (0 if front else 1))
        if first < end:
            row = torch.tensor([front + ids[begin:end]])
            with torch.inference_mode():
                logits = model(input_ids=row).logits[0].double()
            targets = row[0, 1:]
            nll = torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="none")[-(end - first) :]
            total, count = total + nll.sum().item(), count + len(nll)
        scored = end
        if stride and end == len(ids):
            break
    return math.exp(total / count), count


def compare_perplexity(folder, text):
    ids = read_ids(folder, text)
    bos = AutoTokenizer.from_pretrained(folder).bos_token_id
    for length, stride, add_bos in [(32, 0, "off"), (32, 0, "on"), (48, 16, "off"), (48, 16, "on"), (32, 32, "off")]:
        if add_bos == "on" and bos is None:
            continue
        result = espalier("eval", folder, "--task", "ppl", "--text", text, "--seq-len", length, "--stride", stride, "--add-bos", add_bos)["results"]["ppl"]
        expected, count = rival_perplexity(folder, ids, length, stride, bos if add_bos == "on" else None)
        what = f"{folder.name}, length {length}, stride {stride}, BOS {add_bos}"
        check(result["tokens"] == count, f"predicted tokens of {what}: {result['tokens']} here, {count} there")
        check(abs(result["perplexity"] - expected) <= 1e-4 * expected, f"perplexity of {what}: {result['perplexity']} here, {expected} there")


def main():
    for program in (ESPALIER, TINY):
        if not program.exists():
            print(f"skipped: {program} is not built")
            sys.exit(77)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        text = work / "text.txt"
        text.write_text("".join(f"{i} pears lean on the wall, {i * i % 13} figs do not.\n" for i in range(24)), encoding="utf-8")
        for family, tied in (("llama", True), ("qwen2", False)):
            folder = work / family
            subprocess.run([TINY, folder, "--family", family, "--layers", "3", *(["--tied"] if tied else [])], check=True, stdout=subprocess.DEVNULL)
            compare_perplexity(folder, text)
            compare_training(work, folder, text, "partial", 2, "linear", 0.0)
            compare_training(work, folder, text, "full", 0, "cosine", 0.01)
        compare_training(work, work / "llama", text, "partial", 0, "constant", 0.0)
    print(f"{checks()} comparisons with transformers and torch.optim.AdamW equal")


main()
