#!/usr/bin/env bash
# Layer pruning from the shell: score, prune, heal, compare. Any Hugging Face folder or GGUF file of a llama, mistral
# or qwen2 model will do; the text should look like what the model is for.
#
#   examples/layer_pruning/prune_and_heal.sh MODEL TRAIN.txt HELDOUT.txt OUT_FOLDER [LAYERS_TO_REMOVE]
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,5p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
model=$1 train=$2 heldout=$3 out=$4 count=${5:-7}
espalier=${ESPALIER:-$(dirname "$0")/../../build/espalier}
mkdir -p "$out"

# Which layers matter? One sweep gives every score and a report with the similarity map.
"$espalier" redundancy "$model" --calibration "$train" --samples 10 --seq-len 128 --out "$out/redundancy"

# Remove the least useful ones. The kept bytes are copied; nothing is re-encoded.
"$espalier" prune "$model" --count "$count" --method auto --calibration "$train" --samples 10 --seq-len 128 \
  --out "$out/pruned"

# Heal: output head, final norm and the last three layers, on the training text.
"$espalier" finetune "$out/pruned" --mode partial --last 3 --data "$train" --steps 40 --batch-size 8 --seq-len 128 \
  --lr 1e-4 --out "$out/healed"

# What did it cost? The same text, the same protocol, three models.
for folder in "$model" "$out/pruned" "$out/healed"; do
  "$espalier" eval "$folder" --task ppl --text "$heldout" --seq-len 128 --max-segments 32
done
