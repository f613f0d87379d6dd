#!/usr/bin/env bash
# kill -9 at random moments of `espalier prune`, into nothing and over an older result, for folders and GGUF files:
# afterwards OUT is the complete old result, the complete new one, or absent, and the next run succeeds. Then a full disk and
# a place that cannot be written: exit 5, one clear line, nothing left behind.
#
#   tests/e2e/kill_prune.sh              ESPALIER, ESPALIER_BUILD: what to test; KILLS (20 in all), SEED (1)
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
mounts=()
cleanup() {
  for mount in "${mounts[@]}"; do umount "$mount"; done
  rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }
run() { "$espalier" "$@" --threads 1 --progress none > /dev/null 2> "$work/log" || { cat "$work/log" >&2; fail "espalier $*"; }; }

"$build/tests/make_tiny_model" "$work/model" --layers 16 --hidden 512 --tied > /dev/null || fail "make_tiny_model"
run convert "$work/model" --to gguf --type f16 --out "$work/model.gguf"
old=(--remove 2-3) new=(--remove 9-12)

# What a result is worth: its weights and config, not the card, which quotes the command.
digest() {
  if [ -d "$1" ]; then
    (cd "$1" && sha256sum model*.safetensors config.json tokenizer.json generation_config.json | sha256sum)
  else
    sha256sum < "$1"
  fi
}
leftovers() { find "$work" -maxdepth 1 -name "$(basename "$1").*"; }

rounds=0 became_new=0 stayed_old=0 absent=0
# one_kind MODEL OUT old|none: kills in turn at random moments.
one_kind() {
  local model=$1 out=$2 before=$3 flags=() took begun old_digest new_digest i pid
  run prune "$model" "${old[@]}" --out "$out"
  old_digest=$(digest "$out")
  begun=$(date +%s%N)
  run prune "$model" "${new[@]}" --out "$out" --overwrite
  took=$((($(date +%s%N) - begun) / 1000000))
  new_digest=$(digest "$out")
  [ "$old_digest" != "$new_digest" ] || fail "the two plans give the same result: the test tests nothing"
  [ "$before" = old ] && flags=(--overwrite)
  for i in $(seq 1 $((kills / 4))); do
    rm -rf "$out"
    [ "$before" = old ] && run prune "$model" "${old[@]}" --out "$out"
    "$espalier" prune "$model" "${new[@]}" --out "$out" "${flags[@]}" --threads 1 --progress none > /dev/null 2> "$work/log" &
    pid=$!
    sleep "$(awk -v ms=$((RANDOM % (took + 1))) 'BEGIN { printf "%.3f", ms / 1000 }')"
    kill -9 "$pid" 2> /dev/null
    wait "$pid" 2> /dev/null
    rounds=$((rounds + 1))
    if [ ! -e "$out" ]; then
      # Between two renames the old result may lie beside; the next run puts it back or takes over.
      absent=$((absent + 1))
    else
      case "$(digest "$out")" in
        "$old_digest") [ "$before" = old ] || fail "kill $i of $out: an old result out of nowhere"; stayed_old=$((stayed_old + 1)) ;;
        "$new_digest") became_new=$((became_new + 1)) ;;
        *) fail "kill $i of $out: neither the old nor the new result" ;;
      esac
      run verify "$out"
    fi
    if [ -e "$out" ]; then
      run prune "$model" "${new[@]}" --out "$out" --overwrite
    else
      run prune "$model" "${new[@]}" --out "$out" --resume
    fi
    [ "$(digest "$out")" = "$new_digest" ] || fail "kill $i of $out: the next run gave another result"
    [ -z "$(leftovers "$out")" ] || fail "kill $i of $out: left over: $(leftovers "$out")"
  done
  rm -rf "$out"
}
one_kind "$work/model" "$work/fresh_folder" none
one_kind "$work/model" "$work/over_folder" old
one_kind "$work/model.gguf" "$work/fresh.gguf" none
one_kind "$work/model.gguf" "$work/over.gguf" old
echo "$rounds kills: $absent times absent, $stayed_old times the old result, $became_new times the new one, never half a result"

# refused WORDS...: exit 5, the reason on stderr, nothing at the place or beside it.
refused() {
  local reason=$1 out=$2 status
  shift 2
  "$@" > /dev/null 2> "$work/log"
  status=$?
  [ $status = 5 ] || { cat "$work/log" >&2; fail "$*: exit $status, expected 5"; }
  grep -q "$reason" "$work/log" || { cat "$work/log" >&2; fail "$*: does not say $reason"; }
  [ "$(grep -c '^error:' "$work/log")" = 1 ] || fail "$*: not one error line"
  [ ! -e "$out" ] && [ ! -e "$out.partial" ] || fail "$*: something was left behind"
}
limited() { (trap '' XFSZ; ulimit -f 8000; exec "$@"); }
refused "File too large" "$work/big" limited "$espalier" prune "$work/model" "${new[@]}" --out "$work/big" --progress none
refused "File too large" "$work/big.gguf" limited "$espalier" prune "$work/model.gguf" "${new[@]}" --out "$work/big.gguf" --progress none
echo "a file that may not grow: refused, nothing left"
mkdir "$work/small"
if mount -t tmpfs -o size=8m tmpfs "$work/small" 2> /dev/null; then
  mounts+=("$work/small")
  refused "No space left" "$work/small/out" "$espalier" prune "$work/model" "${new[@]}" --out "$work/small/out" --progress none
  refused "No space left" "$work/small/out.gguf" "$espalier" prune "$work/model.gguf" "${new[@]}" --out "$work/small/out.gguf" --progress none
  grep -q "hint:.*free some space" "$work/log" || fail "a full disk without a hint"
  mount -o remount,ro "$work/small" && refused "cannot be written" "$work/small/out" "$espalier" prune "$work/model" "${new[@]}" --out "$work/small/out" --progress none
  echo "a full disk and a read-only file system: refused, nothing left"
elif [ "$(id -u)" != 0 ]; then
  mkdir "$work/locked" && chmod 555 "$work/locked"
  refused "cannot be written" "$work/locked/out" "$espalier" prune "$work/model" "${new[@]}" --out "$work/locked/out" --progress none
  echo "a read-only folder: refused, nothing left (a full disk was not tested: mounting is not allowed here)"
else
  echo "NOT TESTED: a full disk and a read-only folder (mounting is not allowed here, and root may write anywhere)"
fi
