#!/usr/bin/env bash
# Builds and runs every test that needs neither an accelerator nor Python, then says what ran and what was skipped.
#
#   [BUILD=build] [LABELS='unit|cli'] tools/test.sh [ctest options]
#
# Labels: unit, cli, e2e, fuzz, install. `make parity` runs the comparisons with other programs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 6
build=${BUILD:-build}
started=$(date +%s)

tools/build.sh || exit $?
built=$(date +%s)

selection=(-LE 'parity|gpu|slow|perf')
[ -n "${LABELS:-}" ] && selection+=(-L "$LABELS")
# Two test programs at a time on two cores: waiting threads must sleep, or they take the other's core.
export OMP_WAIT_POLICY=passive
# Optional data for tests that name it (docs/architecture.md, Tests); absent, those tests skip and say so.
export ESPALIER_DATA=${ESPALIER_DATA:-$PWD/../shared/data}
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" "${selection[@]}" "$@"
status=$?

log=$build/Testing/Temporary/LastTest.log
count() { grep -cE "$1" "$log" 2>/dev/null || true; }
sum() { grep -oE "$1" "$log" 2>/dev/null | grep -oE '[0-9]+' | paste -sd+ | sed 's/^$/0/' | bc_sum; }
bc_sum() { local expression; read -r expression; echo $((expression)); }
cases_passed=$(sum '^\[  PASSED  \] [0-9]+')
cases_failed=$(sum '^\[  FAILED  \] [0-9]+ tests?')
programs_passed=$(count '^Test Passed\.')
programs_failed=$(count '^Test (Failed|Timeout)|\*\*\*(Exception|Timeout)')
echo
echo "test programs: $programs_passed passed, $programs_failed failed; in them $cases_passed cases passed, $cases_failed failed"
skips=$(grep -E '^\[  SKIPPED \] .+ \(|: Skipped$|^SKIP' -A 1 "$log" 2>/dev/null | grep -vE '^--$|: Skipped$' | sort | uniq -c | sort -rn | head -40)
if [ -n "$skips" ]; then
  echo "skipped (each says why):"
  printf '%s\n' "$skips"
fi
printf 'build %d s, tests %d s\n' $((built - started)) $(($(date +%s) - built))
if [ $status -eq 0 ]; then
  echo "next: make demo, or make parity"
else
  echo "next: ctest --test-dir $build --rerun-failed --output-on-failure"
fi
exit $status
