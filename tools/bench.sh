#!/usr/bin/env bash
# Runs the benches: the questions of benches/*.sh (ours against a peer, medians, one JSON each under benches/results) and
# the per-op programs *_bench (google-benchmark JSON under out/bench). Build them first: tools/build.sh espalier_benches.
#
#   [BUILD=build] [PARITY_PYTHON=python] tools/bench.sh [NAME...]      NAME: ppl_vs_transformers, matmul_bench; default: all
#
# What a bench needs (a peer's Python packages, SmolLM2 as a folder from `make demo`, real text) it says and skips without.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 6
build=${BUILD:-build}
export ESPALIER=${ESPALIER:-$PWD/$build/espalier}
export ESPALIER_BUILD=${ESPALIER_BUILD:-$PWD/$build}
export OMP_WAIT_POLICY=passive
[ -d ../shared/data ] && export ESPALIER_DATA=${ESPALIER_DATA:-$(cd ../shared/data && pwd)}
mkdir -p out/bench

names=("$@")
if [ $# -eq 0 ]; then
  for file in benches/*.sh "$build"/benches/*_bench; do
    if [ -x "$file" ]; then names+=("$(basename "$file" .sh)"); fi
  done
fi
failed=0
for name in "${names[@]}"; do
  echo "[bench] $name" >&2
  if [ -f "benches/$name.sh" ]; then
    bash "benches/$name.sh"
    status=$?
  else
    "$build/benches/$name" --benchmark_out="out/bench/$name.json" --benchmark_out_format=json
    status=$?
  fi
  case $status in
    0) ;;
    77) echo "[bench] $name: skipped" >&2 ;;
    *) echo "[bench] $name: failed ($status)" >&2; failed=$((failed + 1)) ;;
  esac
done
[ $failed -eq 0 ]
