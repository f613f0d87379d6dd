#!/usr/bin/env bash
# Runs prefix_cache.py with any Python 3 that can start processes; what it needs and prints is said there and in peer_bench.py.
exec python3 "$(dirname "$0")/prefix_cache.py" "$@"
