"""`redundancy` and `prune` on a CNN against a plain PyTorch twin of the CIFAR ResNet, in float64 where numbers are compared.

CKA biased and unbiased, averaged by HSIC and by ratio, MSRS with its normalised form and its shares, the similarity of
neighbours, SGLP's row sums over whole features, and its gradient norms from torch autograd. The weights go over as a
torch.save file, the images as PNG files.
Exit codes: 0 equal, 77 a package or program is missing, 1 not equal.
"""

import math
import pathlib
import subprocess
import sys
import tempfile

from comparison import BUILD, check, checks, espalier

try:
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs numpy, torch, pillow")
    sys.exit(77)

IMAGES = BUILD / "tests" / "make_tiny_images"
if not IMAGES.exists():
    print(f"skipped: {IMAGES} is not built (ninja make_tiny_images)")
    sys.exit(77)

BLOCKS, BATCHES, SIZE, CLASSES = 3, 2, 24, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.pad = (after - before) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class Twin(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        before = 16
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = [Block(before if b == 0 else width, width, 2 if b == 0 and stage > 1 else 1) for b in range(BLOCKS)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            before = width
        self.linear = nn.Linear(64, CLASSES)

    def layers(self):
        """The hidden set: modules whose parameters a layer owns."""
        return [[self.conv1, self.bn1]] + [[block] for stage in (self.layer1, self.layer2, self.layer3) for block in stage]

    def forward(self, x, seen=None):
        h = self.conv1(x)
        if seen is not None:
            seen.append(h)
        h = F.relu(self.bn1(h))
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                h = block(h)
                if seen is not None:
                    seen.append(h)
        return self.linear(h.mean((2, 3)))


def random_twin():
    torch.manual_seed(0)
    twin = Twin()
    for name, tensor in twin.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif "bn" in name and name.endswith("weight"):
            tensor.uniform_(0.5, 1.2)
    return twin.eval()


def read_images(folder):
    """Round-robin over the sorted classes, each class by file name."""
    classes = sorted(path for path in pathlib.Path(folder).iterdir())
    files = [sorted(path.iterdir()) for path in classes]
    pixels, labels = [], []
    for number in range(len(files[0])):
        for label, names in enumerate(files):
            pixels.append(np.asarray(Image.open(names[number])))
            labels.append(label)
    x = torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1), torch.tensor(labels)


def hsic(k, l, biased):
    m = len(k)
    if biased:
        h = np.eye(m) - 1 / m
        return np.trace(k @ h @ l @ h) / (m - 1) ** 2
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(m)
    return (np.trace(k @ l) + one @ k @ one * (one @ l @ one) / ((m - 1) * (m - 2)) - 2 * one @ k @ l @ one / (m - 2)) / (m * (m - 3))


def hsic_matrix(features, biased):
    grams = [x @ x.T for x in features]
    return np.array([[hsic(k, l, biased) for l in grams] for k in grams])


def ratio(h):
    return h / np.sqrt(np.outer(np.diag(h), np.diag(h)))


def msrs(s, beta, tau):
    pairs = np.array([[1 / (1 + math.exp(-2 * beta * (x - tau))) for x in row] for row in s])
    np.fill_diagonal(pairs, 0)
    return pairs.sum() / 2, pairs.sum(1) / 2


def close(found, expected, tolerance, what):
    worst = np.max(np.abs(np.asarray(found, dtype=float) - np.asarray(expected)))
    check(worst <= tolerance, f"{what}: differs by {worst}")


def gradient_norms(twin, x, y):
    """Mean over batches of each layer's gradient norm; norms in evaluation mode."""
    sums = np.zeros(len(twin.layers()))
    for batch in range(BATCHES):
        twin.zero_grad()
        part = slice(batch * SIZE, (batch + 1) * SIZE)
        F.cross_entropy(twin(x[part]), y[part]).backward()
        sums += [math.sqrt(sum(p.grad.double().pow(2).sum().item() for module in modules for p in module.parameters())) for modules in twin.layers()]
    return sums / BATCHES


def main():
    twin = random_twin()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in twin.state_dict().items()}}, work / "twin.th")
        subprocess.run([IMAGES, work / "images", "--classes", str(CLASSES), "--per-class", str(BATCHES * SIZE // CLASSES)], check=True, capture_output=True)
        x, y = read_images(work / "images")
        pooled, whole = [], []
        with torch.no_grad():
            for batch in range(BATCHES):
                seen = []
                twin(x[batch * SIZE:(batch + 1) * SIZE], seen)
                pooled.append([h.double().mean((2, 3)).numpy() for h in seen])
                whole.append([h.double().flatten(1).numpy() for h in seen])
        given = (work / "twin.th", "--arch", f"resnet{6 * BLOCKS + 2}", "--data", work / "images", "--batches", BATCHES, "--batch-size", SIZE)
        beta, tau = 5, 0.7
        for biased in (False, True):
            each = [hsic_matrix(features, biased) for features in pooled]
            neighbours = np.mean([ratio(h) for h in each], 0).diagonal(1)
            for average in ("hsic", "ratio"):
                name = f"{'biased' if biased else 'unbiased'}, {average}"
                found = espalier("redundancy", *given, "--cka", "biased" if biased else "unbiased", "--cka-average", average, "--beta", beta, "--tau", tau)
                matrix = ratio(sum(each)) if average == "hsic" else np.mean([ratio(h) for h in each], 0)
                close(found["cka"], matrix, 1e-4, f"CKA, {name}")
                scores = [msrs(matrix, beta, tau)] if average == "hsic" else [msrs(ratio(h), beta, tau) for h in each]
                value, share = np.mean([s[0] for s in scores]), np.mean([s[1] for s in scores], 0)
                close(found["msrs"], value, 1e-2, f"MSRS, {name}")
                close(found["msrs_normalised"], value / math.comb(len(matrix), 2), 1e-3, f"MSRS normalised, {name}")
                close(found["share"], share, 1e-2, f"shares, {name}")
                close(found["metrics"]["adjacent_cka"][1:], neighbours, 1e-4, f"neighbours, {name}")
        redtest = espalier("prune", *given, "--method", "redtest", "--keep-layers", 6, "--allow-stage-head-drop", "--out", work / "redtest")
        close(redtest["scores"]["redtest"][1:], np.mean([ratio(hsic_matrix(f, False)) for f in pooled], 0).diagonal(1), 1e-4, "redtest")
        sglp = espalier("prune", *given, "--method", "sglp", "--keep-layers", 6, "--out", work / "sglp")
        close(sglp["scores"]["similarity_sum"], np.mean([ratio(hsic_matrix(f, True)) for f in whole], 0).sum(0), 1e-3, "row sums")
        norms = gradient_norms(twin, x, y)
        close(np.array(sglp["scores"]["gradnorm"]) / norms, np.ones(len(norms)), 1e-4, "gradient norms")
    print(f"{checks()} comparisons with PyTorch {torch.__version__}: CKA in four forms, MSRS, row sums, gradient norms")


main()
