#!/usr/bin/env bash
# Runs lora_vs_peft.py with any Python 3; what it needs and prints is said there and in peer_bench.py.
exec python3 "$(dirname "$0")/lora_vs_peft.py" "$@"
