#!/usr/bin/env bash
# check.sh FILE COMPILER FLAGS...: FILE compiles; with -DMISTAKE it does not, for the reason the file names.
set -uo pipefail
file=$1
shift
expected=$(sed -n 's|^// expect: ||p' "$file")
[ -n "$expected" ] || { echo "$file: no '// expect: TEXT' line"; exit 1; }
"$@" "$file" || { echo "$file: does not compile even without the mistake"; exit 1; }
if message=$("$@" -DMISTAKE "$file" 2>&1); then
  echo "$file: the mistake compiles"
  exit 1
fi
grep -Eq "$expected" <<< "$message" || { echo "$file: fails for another reason than '$expected':"; echo "$message"; exit 1; }
