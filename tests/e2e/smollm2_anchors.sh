#!/usr/bin/env bash
# Known perplexities of SmolLM2-135M-Instruct, dense and without fixed layers, through the verbs convert, prune, eval and
# redundancy. The numbers were measured with transformers 5.23 and torch 2.11 on the same files.
#
# Needs ESPALIER (the program), ESPALIER_SMOLLM2 (the Q4_1 GGUF; default: what `make demo` fetched) and ESPALIER_DATA (a
# folder with text/wikitext2_{valid,test}.txt). Exit 77 when something is missing.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
espalier=${ESPALIER:-$root/build/espalier}
model=${ESPALIER_SMOLLM2:-$root/.deps/demo/smollm2-135m-instruct.gguf}
text=${ESPALIER_DATA:-$root/../shared/data}/text
for file in "$espalier" "$model" "$text/wikitext2_test.txt" "$text/wikitext2_valid.txt"; do
  [ -e "$file" ] || { echo "skipped: $file is missing; set ESPALIER, ESPALIER_SMOLLM2 or ESPALIER_DATA"; exit 77; }
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMP_WAIT_POLICY=passive
failed=0

# number JSON KEY: the first number under this key.
number() { sed -n "s/.*\"$2\": *\([0-9.eE+-]*\).*/\1/p" "$1" | head -n 1; }

# near NAME FOUND EXPECTED PERCENT
near() {
  if awk -v f="$2" -v e="$3" -v p="$4" 'BEGIN { d = f / e - 1; if (d < 0) d = -d; exit !(f != "" && d <= p / 100) }'; then
    echo "ok    $1: $2 (expected $3 within $4 %)"
  else
    echo "WRONG $1: $2 (expected $3 within $4 %)"
    failed=1
  fi
}

# perplexity MODEL: of the first 24 x 128 test tokens.
perplexity() {
  "$espalier" eval "$1" --task ppl --text "$text/wikitext2_test.txt" --seq-len 128 --max-segments 24 --add-bos off \
    --dtype float32 --progress none --json > "$scratch/eval.json"
  number "$scratch/eval.json" perplexity
}

"$espalier" convert "$model" --to hf --out "$scratch/dense" --progress none > "$scratch/convert.txt"
near "dense folder" "$(perplexity "$scratch/dense")" 51.7388 1
near "dense GGUF" "$(perplexity "$model")" 51.7388 1

# Layers removed, expected perplexity, tolerance in percent: the last ones are chaotic.
while read -r layers expected tolerance; do
  "$espalier" prune "$scratch/dense" --remove "$layers" --force --overwrite --out "$scratch/cut" --progress none > "$scratch/prune.txt"
  near "without $layers" "$(perplexity "$scratch/cut")" "$expected" "$tolerance"
done <<'SETS'
12-18 129.026 1
12-17,25 127.340 1
2-3 111.706 1
23-29 5.146e8 5
0,14,15,17,18,19,20 51578 5
0,3,7,8,20,23,24 365883 5
SETS
"$espalier" prune "$model" --remove 12-18 --out "$scratch/cut.gguf" --progress none > "$scratch/prune.txt"
near "GGUF without 12-18" "$(perplexity "$scratch/cut.gguf")" 129.026 1
[ "$(stat -c %s "$scratch/cut.gguf")" = 82843552 ] || { echo "WRONG GGUF without 12-18 has $(stat -c %s "$scratch/cut.gguf") bytes, expected 82843552"; failed=1; }

"$espalier" redundancy "$scratch/dense" --calibration "$text/wikitext2_valid.txt" --samples 10 --seq-len 128 --count 7 \
  --metrics bi,angular,ppl,mag_l1 --out "$scratch/scores" --progress none --json > "$scratch/redundancy.json"
near "calibration perplexity" "$(number "$scratch/redundancy.json" dense_perplexity)" 36.5015 0.1
near "block runs" "$(number "$scratch/redundancy.json" block_forwards)" 465 0
# Layer of a metric in scores.json, one number per line there.
score() { awk -v m="\"$1\":" -v n="$2" '$1 == m { on = 1; i = -1; next } on { i++; if (i == n) { gsub(/[ ,]/, ""); print; exit } }' "$scratch/scores/scores.json"; }
while read -r metric layer expected; do
  near "$metric of layer $layer" "$(score "$metric" "$layer")" "$expected" 0.3
done <<'SCORES'
ppl 0 96947
ppl 1 1129
ppl 2 97.3
ppl 4 42.920
ppl 5 41.325
ppl 7 41.327
ppl 11 288
ppl 12 42.039
ppl 13 42.156
ppl 14 40.669
ppl 17 41.177
ppl 24 84.5
ppl 28 136
ppl 29 337
bi 0 0.9864
bi 1 0.1654
bi 24 0.1727
bi 29 0.2428
bi 14 0.0249
bi 17 0.0263
angular 12 0.1480
angular 13 0.1616
SCORES
for choice in "bi 14,17,13,15,25,12,3" "angular 12,13,14,15,16,17,18"; do
  read -r metric expected <<< "$choice"
  found=$(cut -d , -f 1-7 "$scratch/scores/block_order_$metric.csv")
  [ "$found" = "$expected" ] || { echo "WRONG order of $metric: $found, expected $expected"; failed=1; }
done
exit $failed
