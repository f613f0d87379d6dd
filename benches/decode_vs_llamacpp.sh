#!/usr/bin/env bash
# Runs decode_vs_llamacpp.py with any Python 3; what it needs and prints is said there and in peer_bench.py.
exec python3 "$(dirname "$0")/decode_vs_llamacpp.py" "$@"
