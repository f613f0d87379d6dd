#!/usr/bin/env bash
# Runs memory_limit.py with any Python 3; what it needs and prints is said there and in peer_bench.py.
exec python3 "$(dirname "$0")/memory_limit.py" "$@"
