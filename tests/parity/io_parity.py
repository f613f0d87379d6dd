"""Our safetensors, Hugging Face folder and GGUF readers and writers against the Python packages others use.

What Python writes, our probe reads and writes again; Python reads that back and compares every tensor and value.
Block formats are compared bit by bit on random blocks; matrix products with quantised weights against float64.
Exit codes: 0 equal, 77 a package or the probe is missing, 1 not equal.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from comparison import check, checks

try:
    import gguf
    import numpy as np
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs gguf, numpy, torch, safetensors")
    sys.exit(77)

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
HALF_FIELDS = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2],
               "Q5_K": [0, 2], "Q6_K": [208]}

class Probe:
    def __init__(self, program):
        self.program = program

    def __call__(self, *words, expect=0):
        done = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True)
        if done.returncode != expect:
            print(f"io_probe {' '.join(map(str, words))}: exit {done.returncode}, expected {expect}\n{done.stderr}")
            sys.exit(1)
        return done.stderr


def random_blocks(rng, name, shape):
    """uint8 array [..., row bytes] of blocks whose float16 fields are finite."""
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = shape
    count = rows * columns // block
    if name == "F32":
        return rng.standard_normal((rows, columns)).astype(np.float32).view(np.uint8)
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if name == "BF16":
        bits = (rng.standard_normal(count).astype(np.float32).view(np.uint32) >> 16).astype("<u2")
        data = bits.view(np.uint8).reshape(count, 2)
    for at in HALF_FIELDS.get(name, []):
        scales = (rng.standard_normal(count) * 0.01).astype("<f2")
        data[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return data.reshape(rows, columns // block * size)


def same_tensors(path, expected):
    found = load_file(path)
    check(set(found) == set(expected), f"names in {path}")
    for name, tensor in expected.items():
        other = found[name]
        check(other.dtype == tensor.dtype and other.shape == tensor.shape, f"type and shape of {name}")
        left, right = (t.contiguous().flatten().view(torch.uint8) if t.numel() else t for t in (other, tensor))
        check(torch.equal(left, right), f"bytes of {name}")


def safetensors_parity(probe, folder):
    generator = torch.Generator().manual_seed(1)
    tensors = {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4, dtype=torch.bfloat16),
               "odd": torch.arange(7, dtype=torch.uint8), "flag": torch.tensor([True, False, True])}
    for dtype in [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]:
        tensors[str(dtype)] = torch.randn(5, 33, generator=generator).to(dtype)
    for dtype in [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]:
        tensors[str(dtype)] = torch.randint(0, 100, (3, 5), generator=generator).to(dtype)
    save_file(tensors, folder / "a.safetensors", metadata={"format": "pt", "note": 'é "x"\n'})
    probe("copy-safetensors", folder / "a.safetensors", folder / "b.safetensors")
    same_tensors(folder / "b.safetensors", tensors)
    with safe_open(folder / "b.safetensors", "pt") as file:
        check(file.metadata() == {"format": "pt", "note": 'é "x"\n'}, "safetensors metadata")
    data = (folder / "a.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(data[:-1])
    check("truncated" in probe("copy-safetensors", folder / "cut.safetensors", folder / "c.safetensors", expect=3),
          "a truncated file is refused with a hint")
    check(not (folder / "c.safetensors").exists(), "a refused input leaves nothing")


def hf_parity(probe, folder):
    """A folder saved by transformers in shards, written again in other shards, loads with equal weights."""
    try:
        import transformers
    except ImportError as error:
        print(f"note: transformers is missing ({error}); the sharded folder is not compared")
        return
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, vocab_size=64, max_position_embeddings=64)
    torch.manual_seed(2)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "hf", max_shard_size="20KB")
    check((folder / "hf" / "model.safetensors.index.json").exists(), "transformers made shards")
    probe("copy-hf", folder / "hf", folder / "hf2", 30000)
    index = json.loads((folder / "hf2" / "model.safetensors.index.json").read_text())
    total = sum(p.numel() * p.element_size() for p in model.state_dict().values())
    check(index["metadata"]["total_size"] == total, "total_size of the index")
    (folder / "hf2" / "config.json").write_bytes((folder / "hf" / "config.json").read_bytes())
    again = transformers.LlamaForCausalLM.from_pretrained(folder / "hf2", dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        check(torch.equal(tensor, again.state_dict()[name]), f"weights of {name} after re-sharding")


def write_gguf(path, blocks, alignment):
    writer = gguf.GGUFWriter(path, "llama")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    writer.add_block_count(3)
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -128)
    writer.add_uint16("a.u16", 65535)
    writer.add_int16("a.i16", -32768)
    writer.add_int32("a.i32", -(2**31))
    writer.add_uint64("a.u64", 2**64 - 1)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float32("a.f32", 1e-5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "é\n")
    writer.add_array("a.strings", ["", "a b", "é"])
    writer.add_array("a.ints", [1, -2, 3])
    writer.add_array("a.floats", [0.5, -1.25])
    for name, data in blocks.items():
        writer.add_tensor(f"w.{name}", data, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_parity(probe, folder):
    rng = np.random.default_rng(3)
    blocks = {name: random_blocks(rng, name, (5, 512)) for name in TYPES}
    for alignment in (32, 64):
        first, second = folder / f"a{alignment}.gguf", folder / f"b{alignment}.gguf"
        write_gguf(first, blocks, alignment)
        probe("copy-gguf", first, second)
        left, right = gguf.GGUFReader(first), gguf.GGUFReader(second)
        check(list(left.fields) == list(right.fields), "GGUF keys and their order")
        for key, field in left.fields.items():
            other = right.fields[key]
            check(field.types == other.types and repr(field.contents()) == repr(other.contents()), f"GGUF value {key}")
        check([t.name for t in left.tensors] == [t.name for t in right.tensors], "GGUF tensor names")
        for a, b in zip(left.tensors, right.tensors):
            check(a.tensor_type == b.tensor_type and list(a.shape) == list(b.shape), f"type and shape of {a.name}")
            check(np.array_equal(np.asarray(a.data).view(np.uint8), np.asarray(b.data).view(np.uint8)),
                  f"bytes of {a.name}")
            check(int(b.data_offset) % alignment == 0, f"alignment of {a.name}")
    probe("dequantize", first, folder / "floats")
    expected = [gguf.quants.dequantize(np.asarray(t.data), t.tensor_type).astype("<f4").ravel() for t in left.tensors]
    ours = np.fromfile(folder / "floats", "<u4")
    check(np.array_equal(ours, np.concatenate(expected).view("<u4")), "dequantised values, bit by bit")

    x = rng.standard_normal((3, 512)).astype("<f4")
    for rows in (1, 3):
        x[:rows].tofile(folder / "x")
        probe("linear", first, folder / "x", rows, folder / "y")
        ours = np.fromfile(folder / "y", "<f4").reshape(len(TYPES), rows, 5)
        for name, weight, y in zip(TYPES, expected, ours):
            w = weight.reshape(5, 512).astype(np.float64)
            bound = 512 * 2.0**-24 * (np.abs(x[:rows].astype(np.float64)) @ np.abs(w).T)
            check(np.all(np.abs(y - x[:rows].astype(np.float64) @ w.T) <= bound), f"product with {name} weights")

    values = np.concatenate([rng.standard_normal(32 * 500), rng.standard_normal(32 * 500) * 1e-6,
                             np.round(rng.standard_normal(32 * 500) * 8) / 2, np.zeros(64)]).astype("<f4")
    values.tofile(folder / "values")
    for name in ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]:
        probe("quantize", name, folder / "values", folder / "blocks")
        expected_bytes = gguf.quants.quantize(values.copy(), gguf.GGMLQuantizationType[name]).tobytes()
        check((folder / "blocks").read_bytes() == expected_bytes, f"quantised {name}, bit by bit")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--espalier", default=os.environ.get("ESPALIER", "build/espalier"),
                        help="the program; the probe lies in tests/parity beside it")
    arguments = parser.parse_args()
    build = pathlib.Path(os.environ.get("ESPALIER_BUILD", pathlib.Path(arguments.espalier).resolve().parent))
    program = build / "tests" / "parity" / "io_probe"
    if not program.exists():
        print(f"skipped: {program} is not built (ninja io_probe)")
        return 77
    probe = Probe(program)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        safetensors_parity(probe, folder)
        hf_parity(probe, folder)
        gguf_parity(probe, folder)
    print(f"equal: {checks()} comparisons (gguf {len(TYPES)} types, safetensors 11 dtypes, re-sharded folder)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
