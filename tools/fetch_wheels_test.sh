#!/usr/bin/env bash
# A damaged download is found by its hash and repeated, a good one is kept, and no network is needed then. pip is
# played by a script that delivers the contents of $DELIVER/1, $DELIVER/2, ... one after the other.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin" "$scratch/wheels"

cat > "$scratch/bin/python3" <<'PIP'
#!/usr/bin/env bash
[ "$3" = --version ] && exit 0
while [ $# -gt 0 ]; do [ "$1" = -d ] && folder=$2; shift; done
count=$(($(cat "$DELIVER/count" 2>/dev/null || echo 0) + 1))
echo $count > "$DELIVER/count"
[ -f "$DELIVER/$count" ] || exit 1
cp "$DELIVER/$count" "$folder/some_thing-1.0-py3-none-any.whl"
PIP
printf '#!/bin/sh\n' > "$scratch/bin/sleep"
chmod +x "$scratch/bin/python3" "$scratch/bin/sleep"
export PATH=$scratch/bin:$PATH DELIVER=$scratch/deliver

fail() { echo "fetch_wheels_test: $*"; exit 1; }
deliver() {  # CONTENT...: what the next downloads bring
  rm -rf "$DELIVER"
  mkdir "$DELIVER"
  local number=0 content
  for content in "$@"; do number=$((number + 1)); printf '%s' "$content" > "$DELIVER/$number"; done
}
downloads() { cat "$DELIVER/count" 2>/dev/null || echo 0; }
fetch() { "$here/fetch_wheels.sh" "$scratch/list.txt" "$scratch/wheels" > "$scratch/log" 2>&1; }

printf '# a comment\nsome.thing==1.0 --hash=sha256:%s\n' "$(printf good | sha256sum | cut -d ' ' -f 1)" > "$scratch/list.txt"
wheel=$scratch/wheels/some_thing-1.0-py3-none-any.whl

deliver damaged '' good
fetch || fail "gave up although the third download was good"
[ "$(downloads)" = 3 ] && [ "$(cat "$wheel")" = good ] || fail "expected three downloads and the good file"

deliver
fetch || fail "a good wheel in the folder was not accepted"
[ "$(downloads)" = 0 ] || fail "asked for a download although the wheel was there"

printf truncated > "$wheel"
deliver good
fetch || fail "a damaged wheel in the folder was not replaced"
[ "$(downloads)" = 1 ] && [ "$(cat "$wheel")" = good ] || fail "expected one download"

rm "$wheel"
mkdir "$scratch/elsewhere"
printf good > "$scratch/elsewhere/$(basename "$wheel")"
deliver
ESPALIER_WHEELS=/nonexistent:$scratch/elsewhere fetch || fail "did not look into ESPALIER_WHEELS"
[ "$(downloads)" = 0 ] && [ "$(cat "$wheel")" = good ] || fail "ESPALIER_WHEELS was not used"

rm "$wheel"
deliver bad bad bad good
fetch && fail "accepted a wheel with a wrong hash"
[ "$(downloads)" = 3 ] || fail "expected three attempts, saw $(downloads)"
grep -q 'no download with the pinned hash' "$scratch/log" || fail "the message does not say what is wrong: $(cat "$scratch/log")"
grep -q 'hint:' "$scratch/log" || fail "no hint"
echo "fetch_wheels_test: 5 stories passed"
