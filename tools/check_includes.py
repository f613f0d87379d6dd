#!/usr/bin/env python3
"""Rules about files that a compiler does not check: the include allowlist, and the shape of headers.

    tools/check_includes.py [ROOT]

1. A header named in tools/include_allowlist.txt is included only by the files listed there.
2. A public header (espalier/**, not *_internal.h or *_testing.h) includes no *_internal.h and no third-party header but
   libtorch's core ones. Every header starts with a comment and has #pragma once, unless a line `// Included more than
   once.` says that it is a piece of text for several files.
3. No source file is longer than 700 lines.
"""
import fnmatch
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
TOPS = ("espalier", "apps", "tests", "benches", "examples")
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
LONGEST_FILE = 700


def read_allowlist(path):
    rules = []
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            header, _, files = line.partition(" :")
            rules.append((header.strip(), files.split()))
    return rules


def check_header(relative, lines):
    problems = []
    if not lines or not lines[0].startswith("//"):
        problems.append(f"{relative}:1: a header opens with a comment that says what it is")
    if "#pragma once" not in lines and not any(line.startswith("// Included more than once.") for line in lines):
        problems.append(f"{relative}:1: no #pragma once")
    return problems


def is_public_third_party(header):
    """Headers of libraries, other than libtorch, the standard library and the system."""
    if "/" not in header and not header.endswith((".h", ".hpp")):
        return False
    return not header.startswith(("espalier/", "ATen/", "c10/", "torch/", "fmt/base.h", "sys/", "cuda", "apps/"))


def check_file(root, path, rules):
    relative = path.relative_to(root).as_posix()
    lines = path.read_text(errors="replace").splitlines()
    problems = []
    if len(lines) > LONGEST_FILE:
        problems.append(f"{relative}:{LONGEST_FILE}: {len(lines)} lines; split it (no file has more than {LONGEST_FILE})")
    public = path.suffix == ".h" and relative.startswith("espalier/") and not path.stem.endswith(("_internal", "_testing"))
    if path.suffix == ".h":
        problems += check_header(relative, lines)
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match[1]
        for pattern, files in rules:
            if fnmatch.fnmatchcase(header, pattern) and not any(fnmatch.fnmatchcase(relative, f) for f in files):
                problems.append(f"{relative}:{number}: <{header}> is not allowed here (tools/include_allowlist.txt)")
                break
        if public and header.endswith("_internal.h"):
            problems.append(f"{relative}:{number}: a public header includes {header}, which is not installed")
        elif public and is_public_third_party(header):
            problems.append(f"{relative}:{number}: a public header includes the third-party header <{header}>")
    return problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    rules = read_allowlist(root / "tools" / "include_allowlist.txt")
    problems = []
    for top in TOPS:
        for path in sorted((root / top).rglob("*")) if (root / top).is_dir() else []:
            if path.suffix in SUFFIXES and path.is_file():
                problems += check_file(root, path, rules)
    for problem in problems:
        print(problem)
    print(f"includes: {len(problems)} problems" if problems else "includes: all within the allowlist")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
