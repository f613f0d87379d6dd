#!/usr/bin/env python3
"""Holds every #include "espalier/..." and every CMake DEPENDS to the layers of cmake/layers.txt.

    tools/check_layers.py [ROOT]

Fails with file:line for an include that points upward, into a same-layer module that is not listed, or into an unknown
module, for listed edges that form a cycle, and for an include whose target the module does not link. Tests, benches
and fuzz targets (*_test.cpp, *_bench.cpp, *_fuzz.cpp) may use any module of their layer, but none above it. Folders
that stand above all modules (tests/, benches/, examples/) are not looked at.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*"((?:espalier|apps)/[^"]+)"')
DEPENDS = re.compile(r'(?<!_)DEPENDS\s+([^)]*)')
KEYWORDS = {"LINK", "TEST_LINK", "TORCH", "DEPENDS"}
SOURCES = {".h", ".cpp", ".cu", ".cuh", ".inc"}


def read_layers(path):
    """-> ({module: layer}, {module: same-layer modules it may include}, problems)"""
    layer, allowed, problems = {}, {}, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"(\d+)\s+(\S+)\s*:\s*(.*)", line)
        if not match:
            problems.append(f"{path}:{number}: not `layer module : modules`")
            continue
        layer[match[2]] = int(match[1])
        allowed[match[2]] = match[3].split()
    for module, others in allowed.items():
        for other in others:
            if other not in layer:
                problems.append(f"{path}: {module} lists {other}, which has no line of its own")
            elif layer[other] != layer[module]:
                problems.append(f"{path}: {module} (layer {layer[module]}) lists {other} of layer {layer[other]}; only same-layer modules are listed")
            elif module.startswith("methods/"):
                problems.append(f"{path}: {module} lists {other}: methods never include methods")
    problems += [f"{path}: cycle {' -> '.join(c)}" for c in cycles(allowed)]
    return layer, allowed, problems


def cycles(edges):
    """Every elementary cycle met by a depth-first walk, as lists that start and end with the same module."""
    found, state = [], {}

    def walk(node, stack):
        state[node] = "open"
        for other in edges.get(node, []):
            if state.get(other) == "open":
                found.append(stack[stack.index(other):] + [other])
            elif other not in state:
                walk(other, stack + [other])
        state[node] = "done"

    for node in edges:
        if node not in state:
            walk(node, [node])
    return found


def module_of(relative, modules):
    """The module with the longest name that holds this file; espalier/kernels/matmul/x.h belongs to kernels."""
    parts = relative.split("/")
    if parts[0] == "espalier":
        parts = parts[1:]
    for length in range(len(parts) - 1, 0, -1):
        name = "/".join(parts[:length])
        if name in modules:
            return name
    return None


def check_edge(source, target, layer, allowed, is_test):
    if layer[target] > layer[source]:
        return f"upward: {source} is layer {layer[source]}, {target} is layer {layer[target]}"
    if source == target or layer[target] < layer[source] or is_test:
        return None
    if target not in allowed[source]:
        return f"sideways: layer {layer[source]} does not list {target} for {source} in cmake/layers.txt"
    return None


def linked_modules(root, layer, allowed):
    """-> ({module: modules it links, through others too}, problems) from the DEPENDS of each CMakeLists.txt."""
    direct, problems = {}, []
    for module in layer:
        file = root / ("" if module.startswith("apps/") else "espalier") / module / "CMakeLists.txt"
        direct[module] = set()
        if not file.exists():
            continue
        match = DEPENDS.search(re.sub(r"#.*", "", file.read_text()))
        for word in match[1].split() if match else []:
            if word in KEYWORDS:
                break
            if word not in layer:
                problems.append(f"{file.relative_to(root)}: DEPENDS {word}, which cmake/layers.txt does not know")
                continue
            wrong = check_edge(module, word, layer, allowed, False)
            if wrong:
                problems.append(f"{file.relative_to(root)}: DEPENDS {word}: {wrong}")
            direct[module].add(word)
    problems += [f"CMake DEPENDS: cycle {' -> '.join(c)}" for c in cycles({m: sorted(d) for m, d in direct.items()})]

    def reach(module, seen):
        for other in direct[module] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    return {module: reach(module, set()) for module in direct}, problems


def check_tree(root):
    layer, allowed, problems = read_layers(root / "cmake" / "layers.txt")
    if problems:
        return problems
    linked, problems = linked_modules(root, layer, allowed)
    files = [p for top in ("espalier", "apps") if (root / top).is_dir() for p in (root / top).rglob("*") if p.suffix in SOURCES]
    for path in sorted(files):
        relative = path.relative_to(root).as_posix()
        source = module_of(relative, layer)
        if source is None:
            problems.append(f"{relative}:1: lies in no module of cmake/layers.txt")
            continue
        is_test = re.search(r"_(test|bench|fuzz)\.cpp$", relative) is not None
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = module_of(match[1], layer)
            if target is None:
                problems.append(f"{relative}:{number}: {match[1]} lies in no module of cmake/layers.txt")
                continue
            wrong = check_edge(source, target, layer, allowed, is_test)
            if wrong:
                problems.append(f"{relative}:{number}: {match[1]}: {wrong}")
            elif not is_test and source != target and not source.startswith("apps/") and target not in linked[source]:
                problems.append(f"{relative}:{number}: {match[1]}: {source} does not link {target}; add it to DEPENDS in its CMakeLists.txt")
    return problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    problems = check_tree(root)
    for problem in problems:
        print(problem)
    print(f"layers: {len(problems)} problems" if problems else "layers: every include points down")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
