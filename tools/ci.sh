#!/usr/bin/env bash
# One step of the checks, or all of them. Each step is what CI runs, no more and no less.
#
#   tools/ci.sh STEP...
#
#   format        clang-format 14 on every C++ file of ours
#   layers        includes and CMake edges point down; the checkers themselves find bad samples
#   allowlist     costly and third-party headers stay in their place
#   shell         shellcheck on every shell script; the set-up repeats a damaged download
#   build test    the release build, make test
#   parity        make parity
#   examples      examples/ builds
#   install       an external project finds the installed package, links, prunes
#   headers       every public header compiles on its own
#   clang         the other compiler builds the program and every library
#   asan          address and undefined-behaviour sanitizers, unit and fuzz tests
#   cuda-compile  the CUDA build, on a machine without a device
#   docs          doxygen without warnings; the snippets of README.md marked as tested run
#   all           everything above; not in it: tidy (clang-tidy, all files), changed-tidy (files changed since HEAD~1)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 6
root=$PWD

our_files() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do if [ -f "$f" ]; then printf '%s\n' "$f"; fi; done; }

configure() {  # PRESET [CMAKE OPTIONS]
  local folder=build-$1
  mkdir -p "$folder"
  cmake --preset "$@" > "$folder/configure.log" 2>&1 || { tail -n 20 "$folder/configure.log"; return 1; }
}

step_format() {
  command -v clang-format > /dev/null || { echo "clang-format 14 is missing: apt-get install clang-format"; return 6; }
  local found
  found=$(our_files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -r clang-format --dry-run --Werror 2>&1 | grep -E ': error:' |
    cut -d: -f1 | sort | uniq -c | awk '{ print $2 ": " $1 " places; clang-format -i " $2 }')
  [ -z "$found" ] || { printf '%s\n' "$found"; return 1; }
}

step_layers() { python3 tools/check_layers.py && python3 -B tools/checks_test.py 2>&1 | tail -n 3; }
step_allowlist() { python3 tools/check_includes.py; }

step_shell() {
  command -v shellcheck > /dev/null || { echo "shellcheck is missing: apt-get install shellcheck"; return 6; }
  our_files '*.sh' .ci/run | xargs -r shellcheck --exclude=SC2015 && tools/fetch_wheels_test.sh  # SC2015: A && B || fail is what we mean
}

step_build() { BUILD=build tools/build.sh; }
step_test() { tools/test.sh; }
step_parity() { make --no-print-directory parity; }

step_clang() {
  configure clang || return 1
  nice -n 2 ninja -C build-clang espalier espalier_libraries
}

step_asan() {
  configure asan || return 1
  nice -n 2 ninja -C build-asan && ctest --preset asan -j "$(nproc)"
}

step_cuda-compile() {
  local nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
  command -v nvcc > /dev/null && nvcc=$(command -v nvcc)
  [ -x "$nvcc" ] || { echo "nvcc of CUDA 13 is missing"; return 6; }
  configure cuda-compile -DCMAKE_CUDA_COMPILER="$nvcc" || return 1
  nice -n 2 ninja -C build-cuda-compile espalier
}

# Each public header in a translation unit of its own, twice, without the precompiled header.
step_headers() {
  local torch=${ESPALIER_TORCH_DIR:-$root/.deps/libtorch/torch} out=build/headers
  mkdir -p "$out"
  export torch out root
  # shellcheck disable=SC2016  # expanded by the inner shell
  our_files 'espalier/*.h' | grep -vE '_(internal|testing)\.h$' | xargs -P "$(nproc)" -I{} bash -c '
    name=$(printf %s "{}" | tr "/" "_")
    printf "#include \"%s\"\n#include \"%s\"\n" "{}" "{}" > "$out/$name.cpp"
    ${CXX:-c++} -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I"$root" -isystem "$torch/include" \
      -isystem "$torch/include/torch/csrc/api/include" "$out/$name.cpp" || { echo "{}: does not compile on its own"; exit 1; }'
}

step_install() { ctest --test-dir build --output-on-failure -L install --no-tests=error; }
step_examples() { tools/build.sh espalier_examples; }

step_docs() {
  command -v doxygen > /dev/null || { echo "doxygen is missing: apt-get install doxygen"; return 6; }
  mkdir -p build/docs
  doxygen docs/Doxyfile > build/docs/doxygen.log 2>&1 || { grep -E 'warning|error' build/docs/doxygen.log | head -n 40; return 1; }
  tools/run_snippets.sh README.md
}

step_tidy() {
  configure tidy || return 1
  nice -n 2 ninja -k 0 -C build-tidy
}

step_changed-tidy() {
  local files
  mapfile -t files < <(git diff --name-only --diff-filter=d HEAD~1 -- 'espalier/*.cpp' 'apps/*.cpp')
  [ ${#files[@]} -gt 0 ] || { echo "no changed files"; return 0; }
  cmake --preset tidy -DCMAKE_CXX_CLANG_TIDY= > /dev/null && nice -n 2 ninja -C build-tidy espalier_pch > /dev/null &&
    clang-tidy -p build-tidy --quiet "${files[@]}"
}

all=(format layers allowlist shell build test parity examples install headers clang asan cuda-compile docs)
[ $# -gt 0 ] || { sed -n '2,20p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
steps=("$@")
[ "$1" = all ] && steps=("${all[@]}")
failed=()
for step in "${steps[@]}"; do
  declare -F "step_$step" > /dev/null || { echo "error: $step: no such step" >&2; echo "  hint:  tools/ci.sh all" >&2; exit 2; }
  echo "== $step"
  started=$(date +%s)
  if "step_$step"; then
    echo "== $step: passed ($(($(date +%s) - started)) s)"
  else
    echo "== $step: FAILED ($(($(date +%s) - started)) s)"
    failed+=("$step")
  fi
done
echo "$((${#steps[@]} - ${#failed[@]})) passed, ${#failed[@]} failed"
if [ ${#failed[@]} -gt 0 ]; then echo "next: tools/ci.sh ${failed[*]}"; exit 1; fi
