#!/usr/bin/env bash
# kill -9 at random moments of `espalier finetune`: afterwards there is no OUT or a complete one, never half a folder, and
# --resume ends with the very bytes of a run that was never stopped.
#
#   tests/e2e/kill_finetune.sh              ESPALIER, ESPALIER_BUILD: what to test; KILLS (20), SEED (1)
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${ESPALIER_BUILD:-$root/build}
espalier=${ESPALIER:-$build/espalier}
kills=${KILLS:-20}
RANDOM=${SEED:-1}
export OMP_WAIT_POLICY=passive
for program in "$espalier" "$build/tests/make_tiny_model"; do
  [ -x "$program" ] || { echo "skipped: $program is not built"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }

"$build/tests/make_tiny_model" "$work/model" --layers 6 --hidden 128 --tied > /dev/null || fail "make_tiny_model"
for i in $(seq 1 700); do
  echo "Tree number $i leans on the wall, is pruned in winter, and bears $((i % 7)) pears and $((i % 5)) figs."
done > "$work/text.txt"
options=(finetune "$work/model" --mode partial --last 2 --data "$work/text.txt" --steps 60 --batch-size 8 --seq-len 64
  --lr 1e-3 --warmup 5 --checkpoint-every 4 --threads 1 --seed 3 --progress none)

weights() { sha256sum "$1/model.safetensors" | cut -d ' ' -f 1; }
curve() { cut -d , -f 1-3 "$1/run/metrics.csv"; }
now() { date +%s%N; }

begun=$(now)
"$espalier" "${options[@]}" --out "$work/straight" > /dev/null 2> "$work/log" || { cat "$work/log" >&2; fail "the uninterrupted run"; }
took_ms=$((($(now) - begun) / 1000000))
expected=$(weights "$work/straight")
echo "uninterrupted: $took_ms ms, $(wc -c < "$work/straight/model.safetensors") bytes"

out=$work/out
finished=0 resumed=0
check_out() {  # OUT, when it is there, is whole
  [ -e "$out" ] || return 0
  [ "$(weights "$out")" = "$expected" ] || fail "kill $1: OUT is there with other bytes"
  [ "$(cd "$out" && find . -type f | grep -v '/run/events' | sort)" = "$(cd "$work/straight" && find . -type f | grep -v '/run/events' | sort)" ] \
    || fail "kill $1: OUT is there, but files are missing or left over"
  [ ! -e "$out.partial" ] || fail "kill $1: OUT and OUT.partial are both there"
  finished=$((finished + 1))
  rm -rf "$out"
}
for kill in $(seq 1 "$kills"); do
  [ -d "$out.partial" ] && resumed=$((resumed + 1))
  "$espalier" "${options[@]}" --out "$out" --resume > /dev/null 2> "$work/log" &
  pid=$!
  sleep "$(awk -v ms=$((RANDOM % (took_ms + 1))) 'BEGIN { printf "%.3f", ms / 1000 }')"
  if kill -9 "$pid" 2> /dev/null; then
    wait "$pid" 2> /dev/null
    # It may have ended by itself between the two lines.
  else
    wait "$pid" || { cat "$work/log" >&2; fail "kill $kill: the run failed by itself"; }
  fi
  check_out "$kill"
done
echo "$kills kills: $resumed runs found something to resume, $finished ended before their kill"

"$espalier" "${options[@]}" --out "$out" --resume > /dev/null 2> "$work/log" || { cat "$work/log" >&2; fail "the last --resume"; }
[ "$(weights "$out")" = "$expected" ] || fail "the resumed run ended with other weights"
[ "$(curve "$out")" = "$(curve "$work/straight")" ] || fail "the resumed run's loss curve differs"
check_out last
[ "$resumed" -gt 0 ] || fail "no kill left anything to resume: choose another SEED"
echo "PASS: resumed equals uninterrupted, sha256 $expected"
