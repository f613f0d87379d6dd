#!/usr/bin/env bash
# RedTest from the shell: measure a CNN, drop the layers that repeat others, train on, compare. IMAGES is a folder of class
# folders, or of train and test folders of them.
#
#   examples/redtest/prune_and_heal.sh CNN IMAGES OUT_FOLDER KEEP_LAYERS [EPOCHS]
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,5p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
net=$1 images=$2 out=$3 keep=$4 epochs=${5:-10}
batches=${BATCHES:-10} size=${BATCH_SIZE:-256}
espalier=${ESPALIER:-$(dirname "$0")/../../build/espalier}
mkdir -p "$out"

# How alike are its layers? The report has the matrix and each layer's share.
"$espalier" redundancy "$net" --data "$images" --batches "$batches" --batch-size "$size" --out "$out/redundancy"

# Keep the stem, the first layer of each stage, and the layers least like the one before them.
"$espalier" prune "$net" --method redtest --keep-layers "$keep" --data "$images" --batches "$batches" --batch-size "$size" \
  --out "$out/pruned"

# Heal by training on, then the same test images through both.
"$espalier" train classifier --weights "$out/pruned" --data "$images" --epochs "$epochs" --lr 0.01 --out "$out/healed"
for folder in "$net" "$out/pruned" "$out/healed"; do
  "$espalier" eval "$folder" --task accuracy --data "$images"
done
