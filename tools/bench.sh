#!/usr/bin/env bash
# Runs the benches that were built (tools/build.sh espalier_benches), one JSON file each under out/bench/.
#
#   [BUILD=build] tools/bench.sh [NAME...]      NAME: the program's name; default: all
#
# A bench prints its JSON on stdout and what it is doing on stderr. Those that need data the project does not ship say so.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 6
build=${BUILD:-build}
out=${OUT:-out/bench}
export ESPALIER=${ESPALIER:-$PWD/$build/espalier}
export ESPALIER_BUILD=${ESPALIER_BUILD:-$PWD/$build}
export ESPALIER_DATA=${ESPALIER_DATA:-$PWD/../shared/data}
mkdir -p "$out"
if [ $# -gt 0 ]; then programs=("${@/#/$build/benches/}"); else programs=("$build"/benches/*_bench); fi
failed=0
for program in "${programs[@]}"; do
  name=$(basename "$program")
  [ -x "$program" ] || { echo "error: $program: not built; tools/build.sh $name" >&2; failed=$((failed + 1)); continue; }
  echo "[bench] $name" >&2
  options=()
  # google-benchmark programs write JSON when asked to; ours always do.
  if "$program" --help 2> /dev/null < /dev/null | grep -q benchmark_format; then options=(--benchmark_format=json); fi
  if "$program" "${options[@]}" > "$out/$name.json"; then
    echo "[bench] $name: $out/$name.json" >&2
  else
    echo "[bench] $name: failed" >&2
    failed=$((failed + 1))
  fi
done
[ $failed -eq 0 ]
