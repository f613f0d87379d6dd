#!/usr/bin/env bash
# The main job on a real model: measure SmolLM2-135M-Instruct's layers, prune a quarter, heal, evaluate, compare, report.
# Called by `make demo`, which also fetches the model and the text. Everything it makes lies under out/demo/; each command
# is shown as it could be typed. DEMO_STEPS sets the healing steps (default 96: a few minutes on two cores).
set -euo pipefail
cd "$(dirname "$0")/.."
espalier=${ESPALIER:-${BUILD:-build}/espalier}
model=.deps/demo/smollm2-135m-instruct.gguf
train=.deps/demo/lee_train.txt
heldout=.deps/demo/lee_heldout.txt
out=out/demo
steps=${DEMO_STEPS:-96}
prompt="The Federal Government says it will"

for file in "$model" "$train" "$heldout"; do
  [ -f "$file" ] || { echo "error: $file: missing" >&2; echo "  hint:  make demo" >&2; exit 6; }
done
rm -rf "$out"
mkdir -p "$out/json"
started=$SECONDS

# as_typed WORDS...: with quotes where a shell needs them.
as_typed() {
  local word
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then printf ' %s' "$word"; else printf " '%s'" "$word"; fi
  done
}

# step TITLE NAME VERB ARGUMENTS...: prints the command, runs it, keeps its JSON document as json/NN-NAME.json.
count=0
step() {
  local title=$1 json begun=$SECONDS
  count=$((count + 1))
  json=$(printf '%s/json/%02d-%s.json' "$out" "$count" "$2")
  shift 2
  printf '\n== %s\n$ espalier%s\n' "$title" "$(as_typed "$@")"
  "$espalier" "$@" --save-json "$json"
  printf '   (%d s)\n' $((SECONDS - begun))
}

# The layers that `prune` chose, as --remove takes them: 12,13,14.
removed() { tr -d ' \n' < "$out"/json/*-prune.json | sed -n 's/.*"removed":\[\([0-9,]*\)\].*/\1/p'; }

protocol=(--task ppl --text "$heldout" --seq-len 128 --max-segments 64)
talk=(--prompt "$prompt" --max-new-tokens 48 --greedy)

echo "espalier demo: SmolLM2-135M-Instruct, 30 layers; text: 299 news items, the last 60 are only evaluated on"
step "What is inside?" inspect inspect "$model"
step "GGUF to a Hugging Face folder" convert convert "$model" --to hf --out "$out/dense"
step "Which layers does the model not need?" redundancy redundancy "$out/dense" --calibration "$train" --samples 10 \
  --seq-len 128 --metrics reverse,mag_l1,bi,angular,ppl,cka_adj --out "$out/redundancy"
step "Take 7 of 30 layers out" prune prune "$out/dense" --count 7 --method auto --recovery planned \
  --scores "$out/redundancy/scores.json" --calibration "$train" --samples 10 --seq-len 128 --out "$out/pruned"
step "Before: held-out perplexity" eval-dense eval "$out/dense" "${protocol[@]}"
step "Pruned: held-out perplexity" eval-pruned eval "$out/pruned" "${protocol[@]}"
step "Heal: head, final norm and last 3 layers, $steps steps" finetune finetune "$out/pruned" --mode partial --last 3 \
  --data "$train" --steps "$steps" --batch-size 8 --seq-len 128 --lr 1e-3 --warmup 8 --out "$out/healed"
step "Healed: held-out perplexity" eval-healed eval "$out/healed" "${protocol[@]}"
step "The pruned model as one GGUF file" prune-gguf prune "$model" --remove "$(removed)" \
  --out "$out/pruned.gguf"
step "The healed model as one GGUF file" gguf convert "$out/healed" --to gguf --type q8_0 --out "$out/healed-q8_0.gguf"
step "Before: a sentence continued" generate-dense generate "$out/dense" "${talk[@]}"
step "Pruned: the same" generate-pruned generate "$out/pruned" "${talk[@]}"
step "Healed: the same" generate-healed generate "$out/healed" "${talk[@]}"
step "One report of it all" report report "$out" "$out"/json/*-eval-*.json "$out"/json/*-generate-*.json \
  --title "SmolLM2-135M-Instruct without 7 of its 30 layers" --out "$out/report.html"

perplexity() { sed -n 's/.*"perplexity": *\([0-9.eE+-]*\).*/\1/p' "$out"/json/*-"$1".json | head -n 1; }
size() { du -sb "$1" | awk '{ printf "%.0f MB", $1 / 1e6 }'; }
cat <<TEXT

held-out perplexity: dense $(perplexity eval-dense), 7 of 30 layers removed $(perplexity eval-pruned), healed $(perplexity eval-healed)
done in $((SECONDS - started)) s; results under $out/, the report: $out/report.html

Next, try:
  $espalier generate $out/healed --prompt "What is a tree?" --chat
  $espalier prune $out/dense --ratio 0.1 --method ppl --scores $out/redundancy/scores.json --out out/pruned-3
  $espalier finetune $out/pruned --mode partial --last 3 --data $train --epochs 4 --batch-size 8 --seq-len 128 --lr 1e-3 --out out/healed-longer
TEXT
