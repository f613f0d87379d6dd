"""Taylor scores as pruning scripts compute them: one backward over the whole model, all gradients held. For sleb_taylor.py.

    torch_taylor.py MODEL TEXT SAMPLES LENGTH        prints {"taylor": [...]}
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model_path, text, samples, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
with open(text, encoding="utf-8", newline="") as f:
    ids = AutoTokenizer.from_pretrained(model_path)(f.read(200_000), add_special_tokens=False)["input_ids"]
rows = torch.tensor(ids[: samples * length]).view(samples, length)
model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
scores = [sum((p.detach() * p.grad).abs().sum(dtype=torch.float64).item() for n, p in layer.named_parameters() if n.endswith("weight"))
          for layer in model.model.layers]
print(json.dumps({"taylor": scores}))
