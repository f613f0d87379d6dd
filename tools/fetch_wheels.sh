#!/usr/bin/env bash
# Brings the wheels pinned in a requirements file into a folder and proves each by its SHA-256.
#
#   tools/fetch_wheels.sh REQUIREMENTS.txt FOLDER
#
# A wheel already there with the right hash is kept, and nothing is asked of the network when all are. One with a
# wrong hash (an interrupted or damaged download) is deleted and fetched again, up to three times. ESPALIER_WHEELS
# may name folders, separated by colons, that are looked into first. Prints one line per wheel it had to fetch.
set -euo pipefail
requirements=$1
folder=$2
mkdir -p "$folder"

platforms=()
for minor in $(seq 28 -1 5); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)

# has_wheel FOLDER NAME VERSION HASH: is that exact wheel in FOLDER?
has_wheel() {
  local file actual
  for file in "$1/$2-$3"-*.whl; do
    [ -f "$file" ] || continue
    actual=$(sha256sum "$file" | cut -d ' ' -f 1)
    [ "$actual" = "$4" ] && { printf '%s\n' "$file"; return 0; }
  done
  return 1
}

# adopt NAME VERSION HASH: takes a matching wheel from ESPALIER_WHEELS, as a link where that is possible.
adopt() {
  local source file
  local -a sources
  IFS=: read -r -a sources <<< "${ESPALIER_WHEELS:-}"
  for source in "${sources[@]}"; do
    [ -d "$source" ] || continue
    if file=$(has_wheel "$source" "$@"); then
      cp -l "$file" "$folder/" 2>/dev/null || cp "$file" "$folder/"
      return 0
    fi
  done
  return 1
}

fetch_one() {  # LINE NAME VERSION HASH
  local attempt one status=0
  one=$(mktemp)
  printf '%s\n' "$1" > "$one"
  for attempt in 1 2 3; do
    printf '  fetching %s %s%s\n' "$2" "$3" "$([ "$attempt" -gt 1 ] && echo " (attempt $attempt)")" >&2
    rm -f "$folder/$2-$3"-*.whl
    if python3 -m pip --disable-pip-version-check download --quiet --progress-bar off --no-deps --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 "${platforms[@]}" \
        --require-hashes -r "$one" -d "$folder" >&2 && has_wheel "$folder" "$2" "$3" "$4" > /dev/null; then
      rm -f "$one"
      return 0
    fi
    status=1
    [ "$attempt" = 3 ] || sleep $((attempt * 2))
  done
  rm -f "$one"
  return $status
}

while read -r line; do
  [[ $line =~ ^([A-Za-z0-9._-]+)==([^ ]+)\ +--hash=sha256:([0-9a-f]{64})$ ]] || continue
  version=${BASH_REMATCH[2]}
  hash=${BASH_REMATCH[3]}
  name=$(printf '%s' "${BASH_REMATCH[1]}" | sed -E 's/[-_.]+/_/g')
  has_wheel "$folder" "$name" "$version" "$hash" > /dev/null && continue
  adopt "$name" "$version" "$hash" && continue
  if ! command -v python3 > /dev/null || ! python3 -m pip --version > /dev/null 2>&1; then
    echo "error: python3: pip is missing, which fetches the pinned wheels" >&2
    echo "  hint:  as root: apt-get install python3 python3-pip" >&2
    exit 6
  fi
  if ! fetch_one "$line" "$name" "$version" "$hash"; then
    echo "error: $name $version: no download with the pinned hash after three attempts" >&2
    echo "  hint:  check the network, or put the wheel into a folder and set ESPALIER_WHEELS=FOLDER" >&2
    exit 6
  fi
done < "$requirements"
