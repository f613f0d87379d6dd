#!/usr/bin/env bash
# Configures when that is needed and builds the named targets (none: everything).
#
#   [BUILD=build] [TYPE=Release] [CUDA=0|1] [ARROW=0|1] tools/build.sh [TARGET...]
#
# A build folder keeps its options: CUDA, ARROW and TYPE change them only when they are given.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}

options=()
[ -n "${TYPE:-}" ] && options+=("-DCMAKE_BUILD_TYPE=$TYPE")
if [ -n "${CUDA:-}" ]; then
  if [ "$CUDA" = 0 ]; then options+=(-DESPALIER_CUDA=OFF); else options+=(-DESPALIER_CUDA=ON); fi
  if [ "$CUDA" != 0 ] && ! command -v nvcc > /dev/null; then
    options+=(-DCMAKE_CUDA_COMPILER="${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
  fi
fi

if [ -n "${ARROW:-}" ]; then
  if [ "$ARROW" = 0 ]; then options+=(-DESPALIER_ARROW=OFF); else options+=(-DESPALIER_ARROW=ON); fi
fi

# Ninja re-runs CMake by itself when a CMake file changes, so configuring is for a new folder or new options.
wanted="${options[*]:-}"
if [ ! -f "$build/build.ninja" ] || { [ -n "$wanted" ] && [ "$wanted" != "$(cat "$build/.options" 2>/dev/null)" ]; }; then
  mkdir -p "$build"
  echo "[build] configuring $build" >&2
  if ! cmake -S . -B "$build" -G Ninja "${options[@]}" > "$build/configure.log" 2>&1; then
    tail -n 30 "$build/configure.log" >&2
    echo "error: $build: CMake could not configure (whole log: $build/configure.log)" >&2
    exit 6
  fi
  printf '%s' "$wanted" > "$build/.options"
fi

export NINJA_STATUS="[build %f/%t, %es] "
exec nice -n 2 ninja -C "$build" "$@"
