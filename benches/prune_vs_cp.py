"""Does pruning cost little more than copying the bytes that stay?

A synthetic bf16 folder and a synthetic Q8_0 GGUF file of GIB GiB (default 4) lose a quarter of their layers. In turn, ROUNDS
times: `cp` of the pruned result, and `espalier prune` as a user types it, which copies, re-opens, runs both models once and
compares them. The page cache is warm and written back before each run. Memory is the peak over that of `espalier --version`.
Targets: wall time <= 1.3 x cp, peak memory <= 150 MiB above idle. Needs about 2.5 x GIB of disk in TMPDIR.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import peer_bench as bench

gib = float(os.environ.get("GIB", "4"))
maker = bench.needed("MAKE_LARGE_MODEL", bench.ROOT / "build" / "benches" / "make_large_model", "the maker of models (ninja make_large_model)")
programs = {"espalier": bench.espalier()}


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def measured(command):
    os.sync()
    return bench.run(command)


def one_format(folder, kind):
    source, pruned, copy = folder / f"source.{kind}", folder / f"pruned.{kind}", folder / f"copy.{kind}"
    subprocess.run([maker, kind, source, str(gib)], check=True)
    command = [programs["espalier"], "prune", source, "--ratio", 0.25, "--method", "reverse", "--out", pruned, "--progress", "none",
               "--threads", bench.THREADS, "--json"]
    rows = {"cp": [], "espalier": []}
    document = json.loads(bench.run(command)["stdout"])  # the first run warms the cache and makes what cp copies
    for _ in range(bench.ROUNDS):
        rows["cp"].append(measured(["cp", "-r", pruned, copy]))
        remove(copy)
        remove(pruned)
        rows["espalier"].append(measured(command))
    size = sum(f.stat().st_size for f in ([source] if source.is_file() else source.rglob("*")) if f.is_file())
    remove(pruned)
    remove(source)
    result = {name: {key: bench.summary([row[key] for row in rows[name]]) for key in ("wall_seconds", "cpu_seconds", "peak_rss_bytes")} for name in rows}
    result.update(source_bytes=size, kept_bytes=document["bytes"], layers_before=document["layers_before"], kept=len(document["kept"]), verified=document["verified"])
    result["wall_ratio"] = result["espalier"]["wall_seconds"]["median"] / result["cp"]["wall_seconds"]["median"]
    return result


machine = bench.machine()
idle = max(bench.run([programs["espalier"], "--version"])["peak_rss_bytes"] for _ in range(3))
with tempfile.TemporaryDirectory(prefix="espalier-prune-bench-") as name:
    folder = pathlib.Path(name)
    free = shutil.disk_usage(folder).free
    if free < 2.7 * gib * 2**30:
        bench.skip(f"{folder} has {free / 2**30:.0f} GiB free, {2.7 * gib:.0f} are needed; set TMPDIR or GIB")
    machine["file_system"] = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
    results = {kind: one_format(folder, kind) for kind in (sys.argv[1:] or ["hf", "gguf"])}
for result in results.values():
    result["peak_rss_above_idle_bytes"] = result["espalier"]["peak_rss_bytes"]["max"] - idle
bench.keep("prune_vs_cp", {
    "bench": "prune_vs_cp", "question": __doc__.strip().splitlines()[0], "machine": machine, "gib": gib, "rounds": bench.ROUNDS,
    "idle_rss_bytes": idle, **results, "targets": {"wall_ratio": "<= 1.3", "peak_rss_above_idle_bytes": "<= 157286400"},
    "met": all(r["wall_ratio"] <= 1.3 and r["peak_rss_above_idle_bytes"] <= 150 * 2**20 for r in results.values())})
