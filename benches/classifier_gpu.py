"""Training an image classifier on one GPU, ours and a plain PyTorch loop in one run: images/s of a step and peak memory.

    python benches/classifier_gpu.py ESPALIER OUT.json [ARCH_DEPTH=56] [BATCH=256]

bfloat16, channels-last, SGD with Nesterov, crops and mirroring on the device. Ours is the program as users run it, with and
without the CUDA graph: the median of its metrics file after the first 20 steps, and images/s over all of an epoch, its
beginning and its measurement included. Peer: torch_classifier.py, eager and torch.compile, median after 20 steps.
Target: 3 x eager. Needs torch.
"""

import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from random_cifar import write_random_cifar

ESPALIER, OUT = sys.argv[1:3]
DEPTH = int(sys.argv[3]) if len(sys.argv) > 3 else 56
BATCH = int(sys.argv[4]) if len(sys.argv) > 4 else 256
WORK = pathlib.Path(os.environ.get("BENCH_WORK", "classifier_gpu_work"))
PEER = pathlib.Path(__file__).resolve().parent / "torch_classifier.py"
SKIP = 20
results = []


def record(**row):
    results.append(row)
    print(json.dumps(row), flush=True)
    eager = [r["images_per_s"] for r in results if r["program"] == "pytorch" and not r["compiled"]]
    fastest = max((r["images_per_s"] for r in results if r["program"] == "espalier"), default=0)
    with open(OUT, "w") as out:
        json.dump({"bench": "classifier_gpu", "workload": f"ResNet-{DEPTH}, batch {BATCH}, bfloat16", "device": device(), "results": results,
                   "ratio_to_eager": fastest / eager[0] if eager else None, "targets": {"ratio_to_eager": ">= 3"}}, out, indent=1)


def device():
    found = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    return found.stdout.strip()


def ours(case, data, *flags):
    out = WORK / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [ESPALIER, "train", "classifier", "--data", data, "--arch", f"resnet{DEPTH}", "--epochs", "2", "--batch-size", str(BATCH), "--dtype",
               "bfloat16", "--device", "cuda", "--lr", "0.1", "--json", "--progress", "none", "--out", str(out), *flags]
    started = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        record(program="espalier", case=case, images_per_s=0, error=done.stderr[-600:])
        return
    document = json.loads(done.stdout)
    with open(out / "run" / "metrics.csv") as rows:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(rows) if row["images_per_second"]]
    step = BATCH / statistics.median(rates[SKIP:])
    record(program="espalier", case=case, images_per_s=round(BATCH / step), step_ms=round(1e3 * step, 3),
           images_per_s_with_first_steps=round(document["tokens_per_second"]), wall_s=round(time.time() - started, 1),
           training_s=round(document["training_seconds"], 2), peak_gib=round(document["peak_device_bytes"] / 2**30, 2),
           loss_first=document["loss_first"], loss_last=document["loss_last"],
           notes=[line for line in done.stderr.splitlines() if "captur" in line])


def peer(compiled):
    flags = ["--compile"] if compiled else []
    done = subprocess.run([sys.executable, str(PEER), "--depth", str(DEPTH), "--batch", str(BATCH), "--steps", "80", "--device", "cuda", "--bf16",
                           "--channels-last", *flags], capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr[-600:], file=sys.stderr)
        return
    found = json.loads(done.stdout)
    step = statistics.median(found["seconds"][SKIP:])
    record(program="pytorch", torch=found["torch"], compiled=compiled, images_per_s=round(BATCH / step), step_ms=round(1e3 * step, 3),
           peak_gib=round(found["peak_device_bytes"] / 2**30, 2))


def main():
    data = str(write_random_cifar(WORK / "data", 50000 // BATCH * BATCH + 80, 10000))
    peer(False)
    ours("graph", data)
    ours("no graph", data, "--cuda-graph", "off")
    peer(True)
    shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
