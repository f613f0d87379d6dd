#!/usr/bin/env bash
# RedTest from the shell: search small networks by accuracy and redundancy, with plain evolution beside it, then train the
# answer for longer. IMAGES is a folder of class folders, or of train and test folders of them.
#
#   examples/redtest/search_cells.sh IMAGES OUT_FOLDER [EVALUATIONS] [EPOCHS]
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
images=$1 out=$2 evaluations=${3:-20} epochs=${4:-3}
size=${MSRS_BATCH_SIZE:-256}
espalier=${ESPALIER:-$(dirname "$0")/../../build/espalier}
mkdir -p "$out"

# Every cell that was trained is kept: the same line again goes on where it was stopped.
"$espalier" search --data "$images" --evaluations "$evaluations" --epochs "$epochs" --msrs-batch-size "$size" --compare \
  --save-best --out "$out/search" --resume

# The answer, from the weights of its short training.
"$espalier" train classifier --weights "$out/search/model" --data "$images" --epochs "$epochs" --lr 0.02 --out "$out/trained"
"$espalier" redundancy "$out/trained" --data "$images" --batches 1 --batch-size "$size" --out "$out/redundancy"
