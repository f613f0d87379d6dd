"""PIQA as lm-eval 0.4.13's HFLM scores it, without lm-eval: MODEL DATA ITEMS DEVICE DTYPE BATCH -> one JSON line. The rival of a bench.

Requests sorted by length, longest first; batches padded on the right; whole logits of a batch through a float32 log-softmax; the rows
of the continuation picked out. Encoding is outside the clock, as it is in ours.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, data, items, device, dtype, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], getattr(torch, sys.argv[5]), int(sys.argv[6])
model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(f"{data}/piqa_valid.jsonl", encoding="utf-8") as f:
    documents = [json.loads(line) for line in f][: items or None]
with open(f"{data}/piqa_valid_labels.lst", encoding="utf-8") as f:
    labels = [int(line) for line in f][: items or None]
requests = []
for document in documents:
    context = f"Question: {document['goal']}\nAnswer:"
    left = tokenizer(context, add_special_tokens=False)["input_ids"]
    for choice in (document["sol1"], document["sol2"]):
        requests.append((left, tokenizer(f"{context} {choice}", add_special_tokens=False)["input_ids"][len(left):]))
order = sorted(range(len(requests)), key=lambda i: -len(requests[i][0] + requests[i][1]))


@torch.inference_mode()
def score(indices, out):
    inputs = [torch.tensor((requests[i][0] + requests[i][1])[:-1]) for i in indices]
    padded = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True).to(device)
    log_probabilities = torch.log_softmax(model(padded, use_cache=False).logits, dim=-1, dtype=torch.float32)
    for row, ids, i in zip(log_probabilities, inputs, indices):
        target = torch.tensor(requests[i][1], device=device)
        rows = row[len(ids) - len(target): len(ids)]
        greedy = bool((rows.argmax(-1) == target).all())
        out[i] = (rows.gather(1, target[:, None]).sum().item(), greedy)


found = [None] * len(requests)
score(order[:batch], found)  # first-call costs are not the question
started = time.perf_counter()
for first in range(0, len(order), batch):
    score(order[first: first + batch], found)
seconds = time.perf_counter() - started
right = right_norm = 0
for i, (document, label) in enumerate(zip(documents, labels)):
    a, b = found[2 * i][0], found[2 * i + 1][0]
    right += (0 if a >= b else 1) == label
    right_norm += (0 if a / len(document["sol1"]) >= b / len(document["sol2"]) else 1) == label
print(json.dumps({"acc": right / len(documents), "acc_norm": right_norm / len(documents), "items_per_second": len(documents) / seconds,
                  "log_likelihoods": [value for value, _ in found]}))
