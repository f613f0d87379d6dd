#!/usr/bin/env bash
# Runs all_pairs_cka.py with any Python 3; what it needs and prints is said there and in peer_bench.py.
exec python3 "$(dirname "$0")/all_pairs_cka.py" "$@"
