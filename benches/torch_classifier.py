"""The peer of the classifier benches: a plain PyTorch training loop on a CIFAR ResNet (He et al. 2016, option A shortcuts).

    python torch_classifier.py [--depth 20] [--batch 128] [--steps 20] [--device cpu] [--bf16] [--channels-last] [--compile] [--threads N]

SGD with momentum 0.9, Nesterov, weight decay; random crop of padded pixels and mirroring per batch, on the device; one JSON
line: seconds of each step, synchronised, and the device's peak memory.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


def resnet(depth):
    layers, width = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for stage in (16, 32, 64):
        for block in range((depth - 2) // 6):
            layers.append(Block(width, stage, 2 if block == 0 and stage > 16 else 1))
            width = stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--depth", type=int, default=20)
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--threads", type=int, default=0)
    for flag in ("bf16", "channels-last", "compile"):
        arguments.add_argument(f"--{flag}", action="store_true")
    a = arguments.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    cuda = a.device.startswith("cuda")
    layout = torch.channels_last if a.channels_last else torch.contiguous_format
    torch.backends.cudnn.benchmark = True
    model = resnet(a.depth).to(a.device).to(memory_format=layout)
    run = torch.compile(model) if a.compile else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    pixels = torch.randint(0, 256, (8 * a.batch, 3, 32, 32), dtype=torch.uint8, device=a.device)
    labels = torch.randint(0, 10, (8 * a.batch,), device=a.device)
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    seconds = []
    for step in range(a.steps):
        wait()
        started = time.perf_counter()
        rows = torch.randint(0, len(pixels), (a.batch,)).to(a.device)
        x = F.pad(pixels[rows].float().div_(127.5).sub_(1), (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        x = x[:, :, top : top + 32, left : left + 32]
        if step % 2:
            x = x.flip(3)
        x = x.contiguous(memory_format=layout)
        with torch.autocast(a.device.split(":")[0], torch.bfloat16, enabled=a.bf16):
            loss = F.cross_entropy(run(x), labels[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        wait()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    print(json.dumps({"torch": torch.__version__, "seconds": seconds, "peak_device_bytes": peak}))


if __name__ == "__main__":
    main()
