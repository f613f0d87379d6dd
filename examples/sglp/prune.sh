#!/usr/bin/env bash
# SGLP from the shell, on a CNN and on a language model.
#
#   examples/sglp/prune.sh cnn CNN IMAGES KEEP_LAYERS OUT
#   examples/sglp/prune.sh llm MODEL TEXT LAYERS_TO_REMOVE OUT
set -euo pipefail
[ $# -eq 5 ] || { sed -n '2,5p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
espalier=${ESPALIER:-$(dirname "$0")/../../build/espalier}
case $1 in
  cnn)
    # The segments, each layer's gradient and the choice are in OUT/run/report.html.
    "$espalier" prune "$2" --method sglp --data "$3" --keep-layers "$4" --out "$5" \
      --batches "${BATCHES:-10}" --batch-size "${BATCH_SIZE:-256}"
    ;;
  llm)
    "$espalier" prune "$2" --method sglp --calibration "$3" --count "$4" --out "$5"
    ;;
  *)
    echo "error: $1: expected cnn or llm" >&2
    exit 2
    ;;
esac
