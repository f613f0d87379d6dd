#!/usr/bin/env bash
# PIQA on SmolLM2-135M-Instruct: the known accuracies of its first 200 documents, 0-shot and without BOS, through
# the published files.
#
# Needs ESPALIER (the program), ESPALIER_SMOLLM2 (the Q4_1 GGUF; default: what `make demo` fetched) and ESPALIER_DATA (a
# folder with eval/piqa_valid.jsonl and its labels). Exit 77 when something is missing.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
espalier=${ESPALIER:-$root/build/espalier}
model=${ESPALIER_SMOLLM2:-$root/.deps/demo/smollm2-135m-instruct.gguf}
data=${ESPALIER_DATA:-$root/../shared/data}/eval
for file in "$espalier" "$model" "$data/piqa_valid.jsonl" "$data/piqa_valid_labels.lst"; do
  [ -e "$file" ] || { echo "skipped: $file is missing; set ESPALIER, ESPALIER_SMOLLM2 or ESPALIER_DATA"; exit 77; }
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMP_WAIT_POLICY=passive
"$espalier" eval "$model" --task piqa --data "$data" --limit 200 --add-bos off --samples "$scratch/samples.jsonl" \
  --progress none --json > "$scratch/eval.json"
failed=0
for pair in '"acc": 0.64,' '"acc_norm": 0.655,' '"n": 200'; do
  if grep -qF "$pair" "$scratch/eval.json"; then
    echo "ok    $pair"
  else
    echo "WRONG expected $pair in:"
    grep -A8 '"piqa"' "$scratch/eval.json"
    failed=1
  fi
done
[ "$(wc -l < "$scratch/samples.jsonl")" = 200 ] || { echo "WRONG $(wc -l < "$scratch/samples.jsonl") samples, expected 200"; failed=1; }
exit $failed
