"""Does training an image classifier on the CPU keep up with a plain PyTorch loop?

ResNet-20, batch 128, float32, SGD with Nesterov, crops and mirroring. Ours is the program as users run it, its rate the median of
its metrics file after the first two steps; the peer is torch_classifier.py, in planes and channels-last, the faster one counts.
In turn, ROUNDS times. Target: images/s ratio >= 1.0.
"""

import csv
import json
import pathlib
import statistics
import tempfile

import peer_bench as bench
from random_cifar import write_random_cifar

DEPTH, BATCH, STEPS, SKIP = 20, 128, 12, 2
PEER = pathlib.Path(__file__).resolve().parent / "torch_classifier.py"

machine = bench.machine()
rates = {"espalier": [], "pytorch": [], "pytorch_channels_last": []}
memory = {name: [] for name in rates}
with tempfile.TemporaryDirectory() as work:
    data, out = write_random_cifar(pathlib.Path(work) / "data", BATCH * STEPS), pathlib.Path(work) / "out"
    for _ in range(bench.ROUNDS):
        done = bench.run([bench.espalier(), "train", "classifier", "--data", data, "--arch", f"resnet{DEPTH}", "--epochs", 1, "--batch-size",
                          BATCH, "--threads", bench.THREADS, "--progress", "none", "--json", "--overwrite", "--out", out])
        with open(out / "run" / "metrics.csv") as rows:
            steps = [float(row["images_per_second"]) for row in csv.DictReader(rows) if row["images_per_second"]]
        rates["espalier"].append(statistics.median(steps[SKIP:]))
        memory["espalier"].append(done["peak_rss_bytes"])
        for name, flags in (("pytorch", []), ("pytorch_channels_last", ["--channels-last"])):
            done = bench.run([bench.python(), PEER, "--depth", DEPTH, "--batch", BATCH, "--steps", STEPS, "--threads", bench.THREADS, *flags])
            rates[name].append(BATCH / statistics.median(json.loads(done["stdout"])["seconds"][SKIP:]))
            memory[name].append(done["peak_rss_bytes"])

found = {name: {"images_per_second": bench.summary(rates[name]), "peak_rss_bytes": bench.summary(memory[name])} for name in rates}
best = max(found[name]["images_per_second"]["median"] for name in ("pytorch", "pytorch_channels_last"))
ratio = found["espalier"]["images_per_second"]["median"] / best
bench.keep("classifier_cpu", {
    "bench": "classifier_cpu", "question": " ".join(__doc__.split("\n\n")[0].split()), "machine": machine, "rounds": bench.ROUNDS,
    "workload": f"ResNet-{DEPTH}, batch {BATCH}, float32, {STEPS} steps, the first {SKIP} left out", **found,
    "images_per_second_ratio": ratio, "targets": {"images_per_second_ratio": ">= 1.0"}, "met": ratio >= 1.0})
