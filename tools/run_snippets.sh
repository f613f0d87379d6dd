#!/usr/bin/env bash
# Runs the shell snippets of a document that are marked as tested: a line `<!-- tested -->`, then a ```sh block.
# All of one document's snippets run in one shell, in the repository's root, and stop at the first failure.
#
#   tools/run_snippets.sh FILE.md...
set -euo pipefail
cd "$(dirname "$0")/.."
for document in "$@"; do
  script=$(awk '/^<!-- tested -->$/ { marked = 1; next }
                marked && /^```sh$/ { inside = 1; marked = 0; next }
                /^```$/ { inside = 0 }
                inside { sub(/^\$ /, ""); print }
                !inside && NF { marked = 0 }' "$document")
  [ -n "$script" ] || { echo "$document: no tested snippet"; continue; }
  count=$(grep -c '^<!-- tested -->$' "$document")
  echo "$document: running $count snippets"
  bash -euxo pipefail -c "$script" > "build/snippets-$(basename "$document").log" 2>&1 ||
    { tail -n 20 "build/snippets-$(basename "$document").log"; echo "$document: a snippet failed"; exit 1; }
done
