#!/usr/bin/env bash
# The installed package, seen from outside: install into a scratch prefix, build tests/install/project against it, prune
# a tiny model with the result, and run the installed program.
#
#   tests/install/run.sh BUILD_FOLDER MAKE_TINY_MODEL SCRATCH_FOLDER
set -euo pipefail
build=$1 make_tiny_model=$2 scratch=$3
here=$(cd "$(dirname "$0")" && pwd)
prefix=$scratch/prefix
rm -rf "$scratch/prefix" "$scratch/project" "$scratch/model" "$scratch/pruned" "$scratch/pruned.partial"

cmake --install "$build" --prefix "$prefix" > "$scratch/install.log"
# The layout that scripts and packagers rely on.
for file in bin/espalier include/espalier/base/error.h include/espalier/methods/layer_pruning/scores.h \
    share/man/man1/espalier.1 share/bash-completion/completions/espalier share/zsh/site-functions/_espalier \
    share/fish/vendor_completions.d/espalier.fish; do
  [ -f "$prefix/$file" ] || { echo "error: $file was not installed"; exit 1; }
done
internal=$(find "$prefix/include" -name '*_internal.h' -o -name '*_testing.h' -o -name '*.cpp')
[ -z "$internal" ] || { echo "error: not for users, but installed: $internal"; exit 1; }
"$prefix/bin/espalier" --version

cmake -S "$here/project" -B "$scratch/project" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" \
  -DEXAMPLE_SOURCE="$here/../../examples/layer_pruning/prune_by_block_influence.cpp" > "$scratch/project.log"
cmake --build "$scratch/project" >> "$scratch/project.log" || { tail -n 30 "$scratch/project.log"; exit 1; }

"$make_tiny_model" "$scratch/model" --layers 6
for i in $(seq 200); do echo "line $i of a text that calibrates a model which has never seen any"; done > "$scratch/text.txt"
"$scratch/project/user_prune" "$scratch/model" "$scratch/text.txt" 2 "$scratch/pruned" 32
[ -f "$scratch/pruned/model.safetensors" ] || { echo "error: no pruned model"; exit 1; }
grep -Eq '"num_hidden_layers": *4' "$scratch/pruned/config.json" || { echo "error: config.json does not say 4 layers"; exit 1; }
echo "install: found, linked, pruned 2 of 6 layers"
