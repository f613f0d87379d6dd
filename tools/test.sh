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
[ -d ../shared/data ] && export ESPALIER_DATA=${ESPALIER_DATA:-$(cd ../shared/data && pwd)}
model=.deps/demo/smollm2-135m-instruct.gguf
[ -f "$model" ] && export ESPALIER_SMOLLM2=${ESPALIER_SMOLLM2:-$PWD/$model}
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" "${selection[@]}" "$@" 2>&1 | tee "$build/ctest.log"
status=${PIPESTATUS[0]}

# "100% tests passed, 0 tests failed out of 12" counts programs; gtest's own lines count the cases in them.
summary=$(grep -E 'tests? failed out of' "$build/ctest.log" | tail -n 1)
total=${summary##* }
programs_failed=$(grep -oE '[0-9]+ tests? failed' <<< "$summary" | cut -d ' ' -f 1)
programs_skipped=$(grep -c '\*\*\*Skipped' "$build/ctest.log")
programs_passed=$((${total:-0} - ${programs_failed:-0} - programs_skipped))
log=$build/Testing/Temporary/LastTest.log
cases() { awk -v word="$1" '$2 == word && $3 == "]" && $5 ~ /^tests?[.,]/ { n += $4 } END { print n + 0 }' "$log"; }
cases_passed=$(cases PASSED)
cases_failed=$(cases FAILED)
echo
echo "test programs: $programs_passed passed, ${programs_failed:-0} failed, $programs_skipped skipped; in them $cases_passed cases passed, $cases_failed failed"
# gtest prints FILE:LINE: Skipped, the reason, then the name of the case.
skips=$(grep -E '^skipped: ' "$log"
  awk '/: Skipped$/ { getline reason } /^\[  SKIPPED \] .* \(/ { print "  " $4 ": " reason }' "$log" 2>/dev/null)
if [ -n "$skips" ]; then
  echo "skipped:"
  printf '%s\n' "$skips"
fi
printf 'build %d s, tests %d s\n' $((built - started)) $(($(date +%s) - built))
if [ "$status" -eq 0 ]; then
  echo "next: make demo, or make parity"
else
  echo "next: ctest --test-dir $build --rerun-failed --output-on-failure"
fi
exit "$status"
