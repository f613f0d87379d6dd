"""Our CNNs against torchvision and against the published definitions of CIFAR ResNets, VGGs and NATS cells.

Folders that we write are loaded (strictly, by name) into the Python networks: logits, hidden features, running
statistics and gradients are compared. What torch.save writes, in both formats, with wrappers and half precision, is
read by us. The networks below follow akamaster/pytorch_resnet_cifar10, chengyangfu/pytorch-vgg-cifar10 and
NAS-Bench-201's cell_infers.
Exit codes: 0 equal, 77 a package or the probe is missing, 1 not equal.
"""

import collections
import json
import subprocess
import sys
import tempfile
import pathlib

from comparison import BUILD, check, checks, run

try:
    import torch
    import torchvision
    from safetensors.torch import load_file, save_file
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs torch, torchvision, safetensors")
    sys.exit(77)

PROBE = BUILD / "tests" / "parity" / "cnn_probe"
TOLERANCE = 1e-4        # of logits and features in float32, relative to the largest where that is above 1
GRAD_TOLERANCE = 2e-3   # gradients sum over pixels in another order, and ReLUs near 0 may flip
CELLS = ["|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|",
         "|none~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|",
         "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|skip_connect~1|avg_pool_3x3~2|"]


class CifarBlock(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pad = width // 4 if stride != 1 or width_in != width else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad is not None:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0)
        return F.relu(y + x)


class CifarResnet(nn.Module):
    def __init__(self, counts, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width = 16
        for stage, count in enumerate(counts):
            blocks = []
            for index in range(count):
                blocks.append(CifarBlock(width, 16 << stage, 2 if stage > 0 and index == 0 else 1))
                width = 16 << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(F.avg_pool2d(x, x.shape[2]).flatten(1))

    def hidden(self):
        return [self.conv1, *self.layer1, *self.layer2, *self.layer3]


class CifarVgg(nn.Module):
    def __init__(self, counts, classes, dropout):
        super().__init__()
        layers, width = [], 3
        for out, count in zip((64, 128, 256, 512, 512), counts):
            for _ in range(count):
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                width = out
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, 512), nn.ReLU(True), nn.Dropout(dropout),
                                        nn.Linear(512, 512), nn.ReLU(True), nn.Linear(512, classes))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.mean((2, 3)))

    def hidden(self):
        return [layer for layer in self.features if isinstance(layer, nn.Conv2d)]


class ReluConvNorm(nn.Module):
    def __init__(self, width_in, width, kernel, stride=1):
        super().__init__()
        self.op = nn.Sequential(nn.ReLU(), nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False),
                                nn.BatchNorm2d(width))

    def forward(self, x):
        return self.op(x)


class Zero(nn.Module):
    def forward(self, x):
        return x.mul(0.0)


OPS = {"none": lambda c: Zero(), "skip_connect": lambda c: nn.Identity(), "nor_conv_1x1": lambda c: ReluConvNorm(c, c, 1),
       "nor_conv_3x3": lambda c: ReluConvNorm(c, c, 3),
       "avg_pool_3x3": lambda c: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)}


class Cell(nn.Module):
    def __init__(self, text, width):
        super().__init__()
        self.layers, self.nodes = nn.ModuleList(), []
        for node in text.split("+"):
            inputs = []
            for word in filter(None, node.split("|")):
                name, source = word.split("~")
                inputs.append((int(source), len(self.layers)))
                self.layers.append(OPS[name](width))
            self.nodes.append(inputs)

    def forward(self, x):
        values = [x]
        for inputs in self.nodes:
            values.append(sum(self.layers[layer](values[source]) for source, layer in inputs))
        return values[-1]


class Reduction(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv_a = ReluConvNorm(width, 2 * width, 3, 2)
        self.conv_b = ReluConvNorm(2 * width, 2 * width, 3)
        self.downsample = nn.Sequential(nn.AvgPool2d(2, 2, 0), nn.Conv2d(width, 2 * width, 1, bias=False))

    def forward(self, x):
        return self.downsample(x) + self.conv_b(self.conv_a(x))


class NatsNet(nn.Module):
    def __init__(self, text, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        cells = []
        for group, width in enumerate((16, 32, 64)):
            if group > 0:
                cells.append(Reduction(width // 2))
            cells += [Cell(text, width) for _ in range(5)]
        self.cells = nn.ModuleList(cells)
        self.lastact = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(64, classes)

    def forward(self, x):
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        return self.classifier(F.adaptive_avg_pool2d(self.lastact(x), 1).flatten(1))

    def hidden(self):
        return [self.stem[0], *self.cells]


class WholeModule(nn.Module):
    """Saved as an object, which names this class."""


def twin(arch, classes, counts=None):
    """The same network in Python, without dropout, and the modules whose outputs are the hidden set."""
    if arch.startswith("|"):
        net = NatsNet(arch, classes)
    elif arch.endswith("_4096"):
        net = getattr(torchvision.models, arch[:8])(num_classes=classes, dropout=0.0)
        net.hidden = lambda: [layer for layer in net.features if isinstance(layer, nn.Conv2d)]
    elif arch.startswith("vgg"):
        net = CifarVgg(counts or ((2, 2, 3, 3, 3) if "16" in arch else (2, 2, 4, 4, 4)), classes, 0.0)
    elif arch in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        net = getattr(torchvision.models, arch)(num_classes=classes)
        net.hidden = lambda: [net.conv1, *net.layer1, *net.layer2, *net.layer3, *net.layer4]
    else:
        net = CifarResnet(counts or [(int(arch[6:]) - 2) // 6] * 3, classes)
    return net


def close(found, expected, tolerance, what):
    check(found.shape == expected.shape, f"shape of {what}: {tuple(found.shape)}, expected {tuple(expected.shape)}")
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    worst = (found.float() - expected.float()).abs().max().item() / scale if expected.numel() else 0.0
    check(worst <= tolerance, f"{what}: differs by {worst:.2e}, allowed {tolerance:.0e}")
    return worst


def hidden_of(net, images):
    found, handles = [], []
    for module in net.hidden():
        handles.append(module.register_forward_hook(lambda m, i, out: found.append(out.detach().clone())))
    logits = net(images)
    for handle in handles:
        handle.remove()
    return logits, found


def compare(net, folder_or_file, arch, images, mode, out, what):
    """One pass through us and through `net`; -> the largest difference of the logits."""
    save_file({"images": images}, out / "images.safetensors")
    run(PROBE, "run", folder_or_file, arch, out / "images.safetensors", out / "out.safetensors", mode)
    ours = load_file(out / "out.safetensors")
    net.train(mode != "running")
    with torch.set_grad_enabled(mode == "grad"):
        logits, hidden = hidden_of(net, images)
    check(len([n for n in ours if n.startswith("hidden.")]) == len(hidden), f"{what}: number of hidden features")
    for index, feature in enumerate(hidden):
        close(ours[f"hidden.{index}"], feature, TOLERANCE, f"{what}: hidden feature {index}")
    worst = close(ours["logits"], logits.detach(), TOLERANCE, f"{what}: logits, {mode}")
    if mode != "running":
        for name, buffer in net.named_buffers():
            close(ours[name], buffer, TOLERANCE, f"{what}: {name} after a training pass")
    if mode == "grad":
        net.zero_grad()
        logits.square().sum().backward()
        for name, parameter in net.named_parameters():
            close(ours[f"grad.{name}"], parameter.grad, GRAD_TOLERANCE, f"{what}: gradient of {name}")
    return worst


def compare_family(out, arch, classes, size, modes):
    folder = out / "net"
    run(PROBE, "make", arch, classes, 7, folder)
    worst = 0.0
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    for mode in modes:
        net = twin(arch, classes)
        net.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        worst = max(worst, compare(net, folder, "-", images, mode, out, arch))
    print(f"{arch}: {', '.join(modes)}; logits within {worst:.1e}", flush=True)


def compare_pruned(out, arch, kept, counts):
    run(PROBE, "make", arch, 10, 3, out / "whole")
    run(PROBE, "prune", out / "whole", kept, out / "cut")
    net = twin(arch, 10, counts)
    net.load_state_dict(load_file(out / "cut" / "model.safetensors"), strict=True)
    config = json.loads((out / "cut" / "config.json").read_text())
    check(config["blocks"] == list(counts), f"{arch}: blocks in config.json")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    compare(net, out / "cut", "-", images, "running", out, f"{arch} pruned to {counts}")
    print(f"{arch}: pruned to {list(counts)}, loaded by name", flush=True)


def compare_torch_files(out):
    torch.manual_seed(5)
    images = torch.randn(2, 3, 32, 32)
    for arch in ("resnet20", "resnet18", "vgg16_bn", CELLS[0]):
        net = twin(arch, 6)
        net.train()
        with torch.no_grad():
            net(torch.randn(8, 3, 32, 32))
        wrapped = {"state_dict": nn.DataParallel(net).state_dict(), "epoch": 9, "best_prec1": torch.tensor(91.5),
                   "optimizer": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict()}
        for name, options in (("a.pth", {}), ("a.th", {"_use_new_zipfile_serialization": False}),
                              ("b.pth", {"pickle_protocol": 5}),
                              ("b.th", {"_use_new_zipfile_serialization": False, "pickle_protocol": 4})):
            torch.save(wrapped, out / name, **options)
            compare(net, out / name, arch, images, "running", out, f"{arch} from {name}")
        torch.save(net.state_dict(), out / "plain.pth")
        compare(net, out / "plain.pth", arch, images, "running", out, f"{arch} from plain.pth")
        half = collections.OrderedDict((k, v.half() if v.is_floating_point() else v) for k, v in net.state_dict().items())
        torch.save(half, out / "half.pth")
        rounded = twin(arch, 6)
        rounded.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
        compare(rounded, out / "half.pth", arch, images, "running", out, f"{arch} from half.pth")
    print("torch.save: both formats, DataParallel, wrappers, half precision", flush=True)


def flatten(value, path, found):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        name = f"{path}.{key}" if path else str(key)
        if isinstance(item, torch.Tensor):
            found[name] = item
        else:
            flatten(item, name, found)
    return found


def compare_pickles(out):
    torch.manual_seed(8)
    base = torch.randn(6, 8)
    shared = {"a": base, "turned": base.t(), "middle": base[2:4, 1::3], "row": base[5], "same": base,
              "long": [torch.arange(5), (torch.tensor(2), {"deep": torch.ones(0, 3)})], 3: torch.zeros(1),
              "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
              "text": "x", "none": None, "size": base.size(), "parameter": nn.Parameter(torch.randn(3))}
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
                  torch.uint8, torch.bool):
        shared[str(dtype)] = (torch.randn(3, 5) * 50).to(dtype)
    expected = flatten(shared, "", {})
    for protocol in (2, 3, 4, 5):
        for new in (True, False):
            torch.save(shared, out / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=new)
            run(PROBE, "pickle", out / "x.pt", out / "x.safetensors")
            found = load_file(out / "x.safetensors")
            check(set(found) == set(expected), f"names, protocol {protocol}: {set(found) ^ set(expected)}")
            for name, tensor in expected.items():
                check(found[name].dtype == tensor.dtype and torch.equal(found[name], tensor.detach()), f"{name}, protocol {protocol}")
    torch.save(WholeModule(), out / "module.pt")
    done = subprocess.run([PROBE, "pickle", out / "module.pt", out / "x.safetensors"], capture_output=True, text=True)
    check(done.returncode == 3 and f"wants `{WholeModule.__module__}.WholeModule`, which is not allowed" in done.stderr, f"a whole module: {done.stderr}")
    print("torch.save: protocols 2-5 of both formats, bit for bit; a pickled module is refused", flush=True)


def main():
    if not PROBE.exists():
        print(f"skipped: {PROBE} is missing; build the target cnn_probe")
        return 77
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        for arch in ("resnet20", "vgg16_bn", *CELLS):
            compare_family(out, arch, 10, 32, ("running", "batch", "grad"))
        for arch in ("resnet56", "resnet110", "vgg19_bn"):
            compare_family(out, arch, 100, 32, ("running", "batch"))
        for arch in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
            compare_family(out, arch, 12, 96, ("running", "batch", "grad") if arch in ("resnet18", "resnet50") else ("running",))
        compare_family(out, "vgg16_bn_4096", 5, 64, ("running",))
        compare_pruned(out, "resnet56", "0,1,2,3,5,7,8,10,19,23,24,25,26,27", (6, 1, 6))
        compare_pruned(out, "vgg16_bn", "0,2,3,4,6,7,10,11", (1, 2, 2, 1, 2))
        compare_torch_files(out)
        compare_pickles(out)
    print(f"cnn: {checks()} comparisons, torch {torch.__version__}, torchvision {torchvision.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
