"""Layer scores of `redundancy` against transformers and torch autograd on the same tiny models and the same tokens.

taylor (one batch, and batches summed signed or apart), gradnorm, ppl, bi, angular, cos_block and the greedy list of sleb are
computed here from their definitions; what ppl+ and taylor+ protect, block_order.csv and the merge file are checked as well.
Exit codes: 0 equal, 77 a package or program is missing, 1 not equal.
"""

import math
import pathlib
import subprocess
import sys
import tempfile

from comparison import ESPALIER, TINY, check, checks, espalier

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs torch, transformers")
    sys.exit(77)

SAMPLES, LENGTH, LAYERS, REMOVE = 6, 32, 9, 3
METRICS = "reverse,bi,angular,cos_block,ppl,ppl+,taylor,taylor+,gradnorm,sleb"

def close(found, expected, tolerance, what):
    for layer, (a, b) in enumerate(zip(found, expected, strict=True)):
        if b is None:
            check(a is None, f"{what}, layer {layer}: {a} here, nothing there")
        else:
            check(abs(a - b) <= tolerance * abs(b), f"{what}, layer {layer}: {a} here, {b} there")


def streams(model, rows):
    """h_0 .. h_L before the final norm; transformers' own list ends after it."""
    seen = []
    hooks = [layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).detach()), with_kwargs=True)
             for layer in model.model.layers]
    hooks.append(model.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach())))
    with torch.no_grad():
        model(input_ids=rows, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def perplexity(model, rows):
    with torch.no_grad():
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1].double()
    return math.exp(torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), rows[:, 1:].reshape(-1)).item())


class Without:
    """The model with some layers skipped, for the length of a `with`."""

    def __init__(self, model, removed):
        self.model, self.layers, self.removed = model, model.model.layers, set(removed)

    def __enter__(self):
        kept = [layer for i, layer in enumerate(self.layers) if i not in self.removed]
        self.model.model.layers = torch.nn.ModuleList(kept)
        self.count, self.model.config.num_hidden_layers = self.model.config.num_hidden_layers, len(kept)
        self.types = getattr(self.model.config, "layer_types", None)
        if self.types is not None:
            self.model.config.layer_types = [t for i, t in enumerate(self.types) if i not in self.removed]
        return self.model

    def __exit__(self, *_):
        self.model.model.layers = self.layers
        self.model.config.num_hidden_layers = self.count
        if self.types is not None:
            self.model.config.layer_types = self.types


def gradients(model, rows):
    model.zero_grad(set_to_none=True)
    model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
    return [{name: p.grad.double().clone() for name, p in layer.named_parameters()} for layer in model.model.layers]


def gradient_scores(model, rows, batch, apart):
    weights = [{name: p.detach().double() for name, p in layer.named_parameters()} for layer in model.model.layers]
    taylor, norms = [0.0] * len(weights), [0.0] * len(weights)
    total = None
    batches = rows.split(batch)
    for part in batches:
        grads = gradients(model, part)
        for layer, g in enumerate(grads):
            norms[layer] += math.sqrt(sum(x.square().sum().item() for x in g.values())) / len(batches)
            if apart:
                taylor[layer] += sum((weights[layer][n] * x).abs().sum().item() for n, x in g.items() if n.endswith("weight"))
        total = grads if total is None else [{n: t[n] + g[n] for n in t} for t, g in zip(total, grads)]
    if not apart:
        taylor = [sum((w[n] * t[n]).abs().sum().item() for n in t if n.endswith("weight")) for w, t in zip(weights, total)]
    return taylor, norms


def greedy(model, rows, count):
    removed, values = [], []
    for _ in range(count):
        scored = []
        for layer in range(1, LAYERS - 1):
            if layer not in removed:
                with Without(model, [*removed, layer]) as rest:
                    scored.append((perplexity(rest, rows), layer))
        value, layer = min(scored)
        removed.append(layer)
        values.append(value)
    return removed, values


def compare(work, family, tied):
    folder, text = work / family, work / "text.txt"
    subprocess.run([TINY, folder, "--family", family, "--layers", str(LAYERS), "--seed", "3", *(["--tied"] if tied else [])], check=True, stdout=subprocess.DEVNULL)
    with open(text, encoding="utf-8", newline="") as f:
        ids = AutoTokenizer.from_pretrained(folder)(f.read(), add_special_tokens=False)["input_ids"]
    rows = torch.tensor(ids[: SAMPLES * LENGTH]).view(SAMPLES, LENGTH)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    options = ["--calibration", text, "--samples", SAMPLES, "--seq-len", LENGTH, "--count", REMOVE]
    found = espalier("redundancy", folder, *options, "--metrics", METRICS, "--out", work / f"scores-{family}")
    metrics = found["metrics"]

    h = streams(model, rows)
    cosine = lambda a, b: torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)
    close(metrics["bi"], [1 - cosine(h[i], h[i + 1]).mean().item() for i in range(LAYERS)], 1e-4, f"{family} bi")
    starts = range(LAYERS - REMOVE + 1)
    nothing = [None] * (REMOVE - 1)
    close(metrics["cos_block"], [1 - cosine(h[j], h[j + REMOVE]).mean().item() for j in starts] + nothing, 1e-4, f"{family} cos_block")
    last = [torch.arccos(cosine(h[j][:, -1], h[j + REMOVE][:, -1]).clamp(-1, 1)).mean().item() / math.pi for j in starts]
    close(metrics["angular"], last + nothing, 1e-4, f"{family} angular")

    without = []
    for layer in range(LAYERS):
        with Without(model, [layer]) as rest:
            without.append(perplexity(rest, rows))
    close(metrics["ppl"], without, 1e-5, f"{family} ppl")
    check(metrics["ppl+"] == metrics["ppl"] and metrics["taylor+"] == metrics["taylor"], f"{family}: + has the same numbers")

    taylor, norms = gradient_scores(model, rows, 10, False)
    close(metrics["taylor"], taylor, 1e-4, f"{family} taylor")
    close(metrics["gradnorm"], norms, 1e-4, f"{family} gradnorm")
    for apart in (False, True):
        flag = ["--taylor-per-batch"] if apart else []
        batched = espalier("redundancy", folder, *options, "--metrics", "taylor,gradnorm", "--gradient-batch", 4, *flag)["metrics"]
        taylor, norms = gradient_scores(model, rows, 4, apart)
        close(batched["taylor"], taylor, 1e-4, f"{family} taylor in batches of 4, apart: {apart}")
        close(batched["gradnorm"], norms, 1e-4, f"{family} gradnorm in batches of 4")

    removed, values = greedy(model, rows, REMOVE)
    check(found["sleb"]["removed"] == removed, f"{family} sleb: {found['sleb']['removed']} here, {removed} there")
    close(found["sleb"]["perplexity"], values, 1e-5, f"{family} sleb perplexities")

    for metric in ("taylor+", "ppl+"):
        base = metrics[metric]
        allowed = [layer for layer in range(4, LAYERS - 2)]
        check(found["choices"][metric]["removed"] == sorted(sorted(allowed, key=lambda layer: base[layer])[:REMOVE]), f"{family} {metric} choice")
    order = [int(x) for x in (work / f"scores-{family}" / "block_order_ppl.csv").read_text().split(",")]
    check(order == sorted(range(LAYERS), key=lambda layer: without[layer]), f"{family} block_order_ppl.csv")
    for metric, choice in found["choices"].items():
        with Without(model, choice["removed"]) as rest:
            close([choice["perplexity"]], [perplexity(rest, rows)], 1e-4, f"{family}: perplexity without what {metric} removes")


def main():
    for program in (ESPALIER, TINY):
        if not program.exists():
            print(f"skipped: {program} is not built")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        (work / "text.txt").write_text("".join(f"{i} pears lean on the wall, {i * i % 13} figs do not.\n" for i in range(40)), encoding="utf-8")
        compare(work, "llama", True)
        compare(work, "qwen2", False)
    print(f"{checks()} comparisons with transformers and torch.autograd equal")


main()
