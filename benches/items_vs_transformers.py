"""Do PIQA and LAMBADA come out equal to a transformers loop on the same files, item by item?

    python benches/items_vs_transformers.py ESPALIER DATA OUT.json FOLDER... [--device cuda] [--limit N]

FOLDER: Hugging Face folders, say a dense model and the same pruned and healed. float32; the loop runs sequences in batches of --batch
(1: none is padded), sorted by length, padded on the right. An item is equal when choice and greedy flag are equal and every log-likelihood is within
1e-3 of its size; an item whose two choices are closer than that may differ in choice and is counted apart. Exit code 1 when items differ.
Needs torch and transformers.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

arguments = argparse.ArgumentParser()
arguments.add_argument("espalier")
arguments.add_argument("data", type=pathlib.Path)
arguments.add_argument("out", type=pathlib.Path)
arguments.add_argument("folders", nargs="+", type=pathlib.Path)
arguments.add_argument("--device", default="cpu")
arguments.add_argument("--limit", type=int, default=0)
arguments.add_argument("--batch", type=int, default=16)
asked = arguments.parse_args()
TOLERANCE = 1e-3


def rows(name):
    with open(asked.data / name, encoding="utf-8") as f:
        return [line for line in f][: asked.limit or None]


def piqa():
    for line, label in zip(rows("piqa_valid.jsonl"), rows("piqa_valid_labels.lst")):
        document = json.loads(line)
        yield f"Question: {document['goal']}\nAnswer:", [f" {document['sol1']}", f" {document['sol2']}"], int(label)


def lambada():
    for line in rows("lambada_openai_test.jsonl"):
        context, _, word = json.loads(line)["text"].rpartition(" ")
        yield context, [f" {word}"], None


@torch.inference_mode()
def likelihoods(model, requests):
    """(log-likelihood, greedy) of each (ids of the context, ids of both)."""
    found = [None] * len(requests)
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]))
    for first in range(0, len(order), asked.batch):
        part = order[first: first + asked.batch]
        inputs = torch.nn.utils.rnn.pad_sequence([torch.tensor(requests[i][1][:-1]) for i in part], batch_first=True)
        logits = model(inputs.to(asked.device), use_cache=False).logits
        for row, i in zip(logits, part):
            left, whole = requests[i]
            row = row[len(left) - 1: len(whole) - 1].float().log_softmax(-1)
            target = torch.tensor(whole[len(left):], device=asked.device)
            found[i] = row.gather(1, target[:, None]).sum().item(), bool((row.argmax(-1) == target).all())
    return found


def loop(folder, items):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(asked.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    found = iter(likelihoods(model, [(ids(context), ids(context + choice)) for context, choices, _ in items for choice in choices]))
    return [[next(found) for _ in choices] for _, choices, _ in items]


def ours(folder, task):
    with tempfile.TemporaryDirectory() as work:
        samples = pathlib.Path(work) / "samples.jsonl"
        command = [asked.espalier, "eval", folder, "--task", task, "--data", asked.data, "--dtype", "float32", "--device", asked.device,
                   "--samples", samples, "--progress", "none", "--json", *(["--limit", asked.limit] if asked.limit else [])]
        done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
        documents = sorted(map(json.loads, samples.read_text(encoding="utf-8").splitlines()), key=lambda sample: sample["doc_id"])
        scores = json.loads(done.stdout)["results"][task]
        return [[(float(ll), str(greedy) == "True" or greedy is True) for ll, greedy in sample["filtered_resps"]] for sample in documents], scores


def compare(folder, task, items):
    mine, scores = ours(folder, task)
    theirs = loop(folder, items)
    assert len(mine) == len(theirs) == len(items) > 0, (len(mine), len(theirs), len(items))
    worst, different, near_ties, right = 0.0, 0, 0, 0
    for (_, choices, label), a, b in zip(items, mine, theirs):
        off = max(abs(x[0] - y[0]) / abs(y[0]) for x, y in zip(a, b))
        worst = max(worst, off)
        chosen = [max(range(len(choices)), key=lambda i: answer[i][0]) for answer in (a, b)]
        right += b[0][1] if label is None else chosen[1] == label
        same = chosen[0] == chosen[1] and [x[1] for x in a] == [y[1] for y in b]
        if not same and len(choices) > 1 and abs(b[0][0] - b[1][0]) < TOLERANCE * abs(b[0][0]):
            near_ties += 1
        elif not same or off > TOLERANCE:
            different += 1
    return dict(folder=folder.name, task=task, items=len(items), acc_espalier=scores["acc"], acc_transformers=right / len(items),
                different_items=different, near_ties=near_ties, largest_relative_difference=worst)


found = []
for folder in asked.folders:
    for task, items in (("piqa", list(piqa())), ("lambada_openai", list(lambada()))):
        found.append(compare(folder, task, items))
        print(json.dumps(found[-1]), flush=True)
device = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"
asked.out.write_text(json.dumps(dict(device=device, torch=torch.__version__, tolerance=TOLERANCE, results=found), indent=1) + "\n")
sys.exit(any(row["different_items"] for row in found))
