#!/usr/bin/env bash
# Runs every *_parity.py: the same inputs through espalier and through the program others use.
#
#   tests/parity/run.sh [NAME...]          NAME: tokenizer for tokenizer_parity.py; default: all
#
# Each script exits 0 when equal, 77 when something it needs is missing (it says what), anything else when not equal.
# A skip counts as a failure with CI set. PARITY_PYTHON names another interpreter than .deps/parity-venv's; scripts
# read ESPALIER (the program), ESPALIER_BUILD (its build folder) and ESPALIER_DATA (optional real data).
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 6
cd "$root" || exit 6
python=${PARITY_PYTHON:-$root/.deps/parity-venv/bin/python}
export ESPALIER_BUILD=${ESPALIER_BUILD:-$root/${BUILD:-build}}
export ESPALIER=${ESPALIER:-$ESPALIER_BUILD/espalier}
[ -d "$root/../shared/data" ] && export ESPALIER_DATA=${ESPALIER_DATA:-$(cd "$root/../shared/data" && pwd)}
export ESPALIER_SOURCE_DIR=$root
model=$root/.deps/demo/smollm2-135m-instruct.gguf
[ -f "$model" ] && export ESPALIER_SMOLLM2=${ESPALIER_SMOLLM2:-$model}
export PYTHONPATH=$root/tests/parity${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=passive

[ -x "$ESPALIER" ] || { echo "error: $ESPALIER: not built" >&2; echo "  hint:  make parity" >&2; exit 6; }
[ -x "$python" ] || { echo "error: $python: no such interpreter" >&2; echo "  hint:  make parity" >&2; exit 6; }

scripts=()
if [ $# -gt 0 ]; then
  for name in "$@"; do scripts+=("tests/parity/${name%_parity.py}_parity.py"); done
else
  scripts=(tests/parity/*_parity.py)
fi
[ -e "${scripts[0]}" ] || { echo "error: tests/parity: no script ${scripts[0]}" >&2; exit 3; }

passed=0 failed=0 skipped=0
failures=()
mkdir -p "$ESPALIER_BUILD/parity"
for script in "${scripts[@]}"; do
  name=$(basename "$script" _parity.py)
  log=$ESPALIER_BUILD/parity/$name.log
  started=$(date +%s)
  timeout 1200 "$python" "$script" > "$log" 2>&1
  status=$?
  seconds=$(($(date +%s) - started))
  case $status in
    0) passed=$((passed + 1)); echo "PASS  $name (${seconds} s): $(tail -n 1 "$log")" ;;
    77) skipped=$((skipped + 1)); echo "SKIP  $name: $(tail -n 1 "$log")" ;;
    *) failed=$((failed + 1)); failures+=("$name"); echo "FAIL  $name (exit $status, ${seconds} s), end of $log:"; tail -n 25 "$log" | sed 's/^/      /' ;;
  esac
done
if [ -n "${CI:-}" ] && [ $skipped -gt 0 ]; then
  echo "a skipped comparison is a failure in CI"
  failed=$((failed + skipped)) skipped=0
fi
echo "parity: $passed passed, $failed failed, $skipped skipped"
if [ $failed -gt 0 ] || [ $passed -eq 0 ]; then
  [ ${#failures[@]} -gt 0 ] && echo "next: tests/parity/run.sh ${failures[*]}"
  exit 1
fi
