#!/usr/bin/env bash
# Runs eval_piqa.py with any Python 3; what it needs and prints is said there and in peer_bench.py.
exec python3 "$(dirname "$0")/eval_piqa.py" "$@"
