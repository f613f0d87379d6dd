"""Shared by the benches that run espalier and a Python peer in turn: processes with their time and peak memory, medians,
the machine, one JSON file.

Environment: ESPALIER (the program), PARITY_PYTHON or .deps/parity-venv (an interpreter with torch and transformers),
ESPALIER_DATA (folder that holds text/wikitext2_*.txt), ESPALIER_SMOLLM2 (Hugging Face folder), THREADS, ROUNDS.
Exit code 77: something needed is missing, and the line says what.
"""

import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
THREADS = int(os.environ.get("THREADS", "2"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))


def skip(what):
    print(f"skipped: {what}")
    sys.exit(77)


def needed(name, default, what):
    path = pathlib.Path(os.environ.get(name) or default)
    if not path.exists():
        skip(f"{what}: {path} is missing; set {name}")
    return path


def espalier():
    return needed("ESPALIER", ROOT / "build" / "espalier", "the program")


def python():
    return needed("PARITY_PYTHON", ROOT / ".deps" / "parity-venv" / "bin" / "python", "an interpreter with transformers")


def smollm2():
    path = needed("ESPALIER_SMOLLM2", ROOT / "out" / "demo" / "dense", "SmolLM2-135M-Instruct as a folder")
    if not (path / "model.safetensors").exists():
        skip(f"{path} holds no model.safetensors")
    return path


def wikitext(split):
    return needed("ESPALIER_DATA", ROOT.parent / "shared" / "data", "real data") / "text" / f"wikitext2_{split}.txt"


def environment():
    # Passive waiting: spinning threads of one process would starve the other's on a shared machine.
    names = dict(OMP_NUM_THREADS=str(THREADS), MKL_NUM_THREADS=str(THREADS), OMP_WAIT_POLICY="passive",
                 HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error", PYTHONWARNINGS="ignore")
    return {**os.environ, **names}


def run(command, missing=None):
    """Runs a process to its end: its stdout, wall and CPU seconds, peak resident bytes. None when it exits with `missing`."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.DEVNULL, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        if process.returncode == missing:
            return None
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}")
        out.seek(0)
        text = out.read()
    return {"stdout": text, "wall_seconds": wall, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_rss_bytes": usage.ru_maxrss * 1024}


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def machine():
    facts = {}
    with open("/proc/cpuinfo") as f:
        for line in f:
            if ":" in line:
                key, value = (part.strip() for part in line.split(":", 1))
                facts.setdefault(key, value)
    versions = subprocess.run([python(), "-c", "import torch, transformers; print(torch.__version__, transformers.__version__)"],
                              capture_output=True, text=True, env=environment()).stdout.split()
    return {"cpu": f"{facts.get('model name', '?')} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}",
            "cores": os.cpu_count(), "threads": THREADS, "load_1min_at_start": round(os.getloadavg()[0], 2),
            "torch": versions[0] if versions else "?", "transformers": versions[1] if len(versions) > 1 else "?",
            "date": datetime.date.today().isoformat()}


def keep(name, document):
    path = pathlib.Path(os.environ.get("OUT") or ROOT / "benches" / "results") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))
    print(f"kept in {path}", file=sys.stderr)
