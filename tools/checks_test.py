#!/usr/bin/env python3
"""The checkers must be able to fail: each bad sample below has to be found, with its file and line."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import check_includes
import check_layers

LAYERS = """
0 base :
0 run : base
1 io : tensor
1 tensor :
2 models/decoder :
4 methods/one :
4 methods/two :
5 apps/cli :
"""
DEPENDS = {
    "run": "base", "io": "base tensor", "tensor": "base", "models/decoder": "io",
    "methods/one": "models/decoder", "methods/two": "models/decoder",
}


class Tree:
    """A small repository in a temporary folder."""

    def __init__(self, layers=LAYERS, depends=DEPENDS):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.write("cmake/layers.txt", layers)
        for module, others in depends.items():
            self.write(f"espalier/{module}/CMakeLists.txt", f"espalier_module({module} TORCH DEPENDS {others} LINK ZLIB::ZLIB)\n")

    def __del__(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def problems(self):
        return check_layers.check_tree(self.root)


class LayerCheck(unittest.TestCase):
    def one_problem(self, tree, *parts):
        problems = tree.problems()
        self.assertEqual(len(problems), 1, problems)
        for part in parts:
            self.assertIn(part, problems[0])

    def test_good_tree(self):
        tree = Tree()
        tree.write("espalier/io/gguf.cpp", '#include "espalier/io/gguf.h"\n#include "espalier/tensor/dtype.h"\n#include "espalier/base/error.h"\n')
        tree.write("espalier/methods/one/a.cpp", '#include "espalier/models/decoder/decoder.h"\n#include "espalier/base/error.h"\n')
        self.assertEqual(tree.problems(), [])

    def test_upward(self):
        tree = Tree()
        tree.write("espalier/io/gguf.cpp", '// x\n#include "espalier/models/decoder/decoder.h"\n')
        self.one_problem(tree, "espalier/io/gguf.cpp:2", "upward", "layer 1", "layer 2")

    def test_sideways(self):
        tree = Tree()
        tree.write("espalier/tensor/a.cpp", '#include "espalier/io/gguf.h"\n')
        self.one_problem(tree, "espalier/tensor/a.cpp:1", "sideways")

    def test_method_includes_method(self):
        tree = Tree()
        tree.write("espalier/methods/one/a.h", '#include "espalier/methods/two/b.h"\n')
        self.one_problem(tree, "espalier/methods/one/a.h:1", "sideways")

    def test_method_listed_for_method(self):
        tree = Tree(LAYERS.replace("methods/one :", "methods/one : methods/two"))
        self.one_problem(tree, "methods never include methods")

    def test_cycle(self):
        tree = Tree(LAYERS.replace("1 tensor :", "1 tensor : io"))
        self.one_problem(tree, "cycle")

    def test_unknown_module(self):
        tree = Tree()
        tree.write("espalier/io/a.cpp", '#include "espalier/graph/csr.h"\n')
        self.one_problem(tree, "espalier/io/a.cpp:1", "no module")

    def test_not_linked(self):
        tree = Tree(depends={**DEPENDS, "io": "base"})
        tree.write("espalier/io/a.cpp", '#include "espalier/tensor/dtype.h"\n')
        self.one_problem(tree, "espalier/io/a.cpp:1", "does not link tensor")

    def test_depends_upward(self):
        tree = Tree(depends={**DEPENDS, "tensor": "base models/decoder"})
        self.assertTrue(any("DEPENDS models/decoder: upward" in p for p in tree.problems()))

    def test_tests_may_go_sideways_but_not_up(self):
        tree = Tree()
        tree.write("espalier/tensor/a_test.cpp", '#include "espalier/io/gguf.h"\n')
        self.assertEqual(tree.problems(), [])
        tree.write("espalier/tensor/a_test.cpp", '#include "espalier/models/decoder/decoder.h"\n')
        self.one_problem(tree, "espalier/tensor/a_test.cpp:1", "upward")


class IncludeCheck(unittest.TestCase):
    RULES = [("torch/torch.h", ["tests/parity/*"]), ("CLI/*", ["apps/cli/*"])]

    def check(self, name, text):
        tree = Tree()
        tree.write(name, text)
        return check_includes.check_file(tree.root, tree.root / name, self.RULES)

    def test_allowlist(self):
        self.assertIn("espalier/nn/a.cpp:2", self.check("espalier/nn/a.cpp", "// x\n#include <torch/torch.h>\n")[0])
        self.assertEqual(self.check("tests/parity/a.cpp", "#include <torch/torch.h>\n"), [])
        self.assertEqual(len(self.check("espalier/run/a.cpp", "#include <CLI/CLI.hpp>\n")), 1)

    def test_public_header(self):
        good = "// What it is.\n#pragma once\n#include <ATen/core/Tensor.h>\n#include <vector>\n#include <sys/types.h>\n"
        self.assertEqual(self.check("espalier/nn/a.h", good), [])
        self.assertIn("third-party", self.check("espalier/nn/a.h", good + "#include <nlohmann/json.hpp>\n")[0])
        self.assertIn("not installed", self.check("espalier/nn/a.h", good + '#include "espalier/base/json_internal.h"\n')[0])
        self.assertEqual(self.check("espalier/nn/a_internal.h", good + "#include <nlohmann/json.hpp>\n"), [])
        self.assertIn("pragma once", self.check("espalier/nn/a.h", "// x\n")[0])
        self.assertIn("opens with", self.check("espalier/nn/a.h", "#pragma once\n")[0])

    def test_long_file(self):
        self.assertIn("701 lines", self.check("espalier/nn/a.cpp", "// x\n" * 701)[0])


if __name__ == "__main__":
    unittest.main()
