"""Shared by the comparisons: where the program and its helpers lie, counted checks, running a program."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("ESPALIER_BUILD", ROOT / "build"))
ESPALIER = pathlib.Path(os.environ.get("ESPALIER", BUILD / "espalier"))
TINY = BUILD / "tests" / "make_tiny_model"
_checks = 0


def check(condition, what):
    """Counts a comparison; ends the script with exit code 1 when it does not hold."""
    global _checks
    _checks += 1
    if not condition:
        print(f"NOT EQUAL: {what}")
        sys.exit(1)


def checks():
    return _checks


def run(program, *words):
    """stdout of a program that must succeed."""
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{program} {' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr}")
        sys.exit(1)
    return done.stdout


def espalier(*words):
    """The JSON document of a verb."""
    return json.loads(run(ESPALIER, *words, "--progress", "none", "--json"))
