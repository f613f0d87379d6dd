"""Our token ids, decoded text and chat prompts against `tokenizers`, `transformers`, `sentencepiece` and `jinja2`.

2,000 generated lines of mixed text (scripts, emoji, joiners, combining marks, tabs, CRLF, digits, special tokens spelled
in the text, unassigned and private characters) go through several tokenizers on both sides. Small tokenizers are trained
here; SmolLM2's comes from its GGUF file when one is found ($ESPALIER_SMOLLM2, or a .gguf under .deps/); more GGUF
vocabularies are read from the folder $ESPALIER_GGUF_VOCABS when it is set.

    tests/parity/run.sh tokenizer        or: python tests/parity/tokenizer_parity.py [--lines 2000] [--only NAME]
"""
import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

try:
    import sentencepiece
    import tokenizers
    import transformers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

transformers.logging.set_verbosity_error()
SOURCE = pathlib.Path(os.environ.get("ESPALIER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("ESPALIER_BUILD", SOURCE / "build"))
PROBE = BUILD / "tests" / "parity" / "espalier_tokenizer_probe"

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

WORDS = ("the a of and espalier tree branch pruning layer model token weights doesn't it's I'll we've THEY'RE naïve café "
         "Zürich straße Ελλάδα Привет мир שלום مرحبا नमस्ते สวัสดี 안녕하세요 你好 世界 日本語 テスト ｆｕｌｌ ﬁre İstanbul ǅungla Ⅷ ½ ² "
         "3.14 1,234,567 0x1F 2024-11-25 a_b::c() <s> </s> <unk> [INST] <|end|> <|end|>x http://a.b/c?d=e&f=g e=mc² → ≠ ∑ € £ ™ "
         "👍 👩‍👩‍👧‍👦 🇩🇪 👍🏽 e\u0301 a\u0308\u0301 \u0301 ﷺ 𝕏𝕐 𠮷野家 x\u200by x\u200dy \u00adsoft \ufeffbom ▁under ▁▁ Ġbyte ĠĠ <0x41> <0xE2>").split(" ")
SPACES = [" "] * 12 + ["  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\u00a0", "\u3000", "\u2009", "\u180e", "\u0085", "\u2028", " \t ", ""]


def random_line(rng):
    style = rng.random()
    if style < 0.6:
        return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randint(1, 25)))
    if style < 0.75:  # anything that is a character
        points = []
        while len(points) < rng.randint(1, 60):
            point = rng.choice([rng.randint(0, 0x7F), rng.randint(0x80, 0x7FF), rng.randint(0x800, 0xFFFF), rng.randint(0x10000, 0x10FFFF)])
            if not 0xD800 <= point < 0xE000:
                points.append(chr(point))
        return "".join(points)
    if style < 0.85:  # few letters, many repetitions: merges that overlap
        return "".join(rng.choice("aab \n") for _ in range(rng.randint(1, 200)))
    if style < 0.92:
        return "".join(rng.choice("0123456789 .,٣७") for _ in range(rng.randint(1, 60)))
    return rng.choice(SPACES) * rng.randint(0, 20) + rng.choice(WORDS) + rng.choice(SPACES) * rng.randint(0, 20)


def make_lines(count, seed=7):
    rng = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "a", " a", "a ", "  a", "\t\ta", "<s>", "<s> a", " <s>a", "a<|end|>b", "<|end|>  b", "b  <|end|>",
             "hello world", "Hello  World", "▁", " ▁", "▁ a", "\u0301", "e\u0301", "\u1100\u1161\u11a8", "\u00e9"]
    return fixed + [random_line(rng) for _ in range(count - len(fixed))]


class Probe:
    def __init__(self, path):
        self.process = subprocess.Popen([str(PROBE), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def __call__(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the probe ended with {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(name, path, lines, encode, decode, strict_decode=True):
    """encode(text, special, special_in_text) -> ids; decode(ids, skip) -> text."""
    probe = Probe(path)
    problems = 0

    def report(what, line, theirs, ours):
        nonlocal problems
        problems += 1
        if problems <= 5:
            print(f"  {name}: {what} of {line!r}\n    theirs {theirs!r}\n    ours   {ours!r}")

    for index, line in enumerate(lines):
        special = index % 3 == 0
        special_in_text = index % 5 != 0
        ids = encode(line, special, special_in_text)
        ours = probe(encode=line, special=special, special_in_text=special_in_text)
        if ours.get("ids") != ids:
            report("ids", line, ids, ours.get("ids", ours))
            continue
        skip = index % 2 == 0
        text = decode(ids, skip)
        got = probe(decode=ids, skip_special=skip)
        if got.get("text") != text:
            report(f"text (skip={skip})", line, text, got.get("text", got))
        if got.get("streamed") != got.get("text"):
            report("stream", line, got.get("text"), got.get("streamed"))
    # Sequences of ids that no text gives: broken characters, special tokens anywhere.
    rng = random.Random(11)
    for _ in range(300):
        ids = [rng.randrange(sizes[name]) for _ in range(rng.randint(1, 12))] if name in sizes else []
        if not ids:
            break
        text = decode(ids, False)
        got = probe(decode=ids, skip_special=False)
        if got.get("text") != text or got.get("streamed") != text:
            report("text", ids, text, got)
    probe.close()
    print(f"{'ok   ' if problems == 0 else 'WRONG'} {name}: {len(lines)} lines, {problems} differences")
    return problems


sizes = {}


# Combining marks younger than the Unicode tables inside `tokenizers`, which therefore does not strip them.
YOUNG_MARKS = re.compile("[\u07fd\u0afa-\u0aff\u0898-\u089f\u08ca-\u08d4\u09fe\u0b55\u0c04\u0c3c\u0d00\u0d3b\u0d3c\u0eba\u0ece\u1abf-\u1ace\u1df6-\u1dfb\ua82c"
                         "\ua8ff\U00010a00-\U000e01ef]")


def from_tokenizers(name, tokenizer, folder, lines):
    if name in ("splits", "bert-pre"):
        lines = [YOUNG_MARKS.sub("", line) for line in lines]
    path = folder / f"{name}.json"
    tokenizer.save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    sizes[name] = tokenizer.get_vocab_size()

    def encode(text, special, special_in_text):
        tokenizer.encode_special_tokens = not special_in_text
        return tokenizer.encode(text, add_special_tokens=special).ids

    return compare(name, path, lines, encode, lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip))


def corpus(seed=3):
    rng = random.Random(seed)
    lines = [random_line(rng) for _ in range(3000)]
    lines += ["The espalier is a tree whose branches are trained to grow flat against a wall, and pruned."] * 50
    return lines


def byte_level(pre, normalizer=None, vocab=2000, ignore_merges=False, bos=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("<|end|>", rstrip=True, lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("[INST]", normalized=True), AddedToken("pruning", single_word=True, normalized=False), AddedToken("  ", normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def trained(folder, lines):
    P = pre_tokenizers
    split = lambda pattern: P.Split(Regex(pattern), "isolated")
    failures = 0
    cases = {
        "gpt2": byte_level(P.ByteLevel(add_prefix_space=False), bos=True),
        "gpt2-prefix": byte_level(P.ByteLevel(add_prefix_space=True)),
        "smollm": byte_level(P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)])),
        "llama3": byte_level(P.Sequence([split(LLAMA3), P.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True, bos=True),
        "qwen2": byte_level(P.Sequence([split(QWEN2), P.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizers.NFC()),
        "o200k": byte_level(P.Sequence([split(O200K), P.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizers.NFKC()),
        "deepseek3": byte_level(P.Sequence([split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), P.ByteLevel(add_prefix_space=False, use_regex=False)])),
        "falcon": byte_level(P.Sequence([P.Punctuation("contiguous"), P.ByteLevel(add_prefix_space=False), P.Digits(False), split("[0-9][0-9][0-9]")])),
        "splits": byte_level(P.Sequence([P.Split(Regex(r"\n+"), "merged_with_next"), P.Split(" ", "merged_with_previous"), P.Split(Regex(r"[\p{L}\p{M}]+"), "contiguous", invert=True),
                                         P.Split(Regex(r"\x{200b}|x*"), "removed"), P.ByteLevel(add_prefix_space=False, use_regex=False)]),
                             normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(r"\d+"), "#")])),
    }
    for name, tokenizer in cases.items():
        failures += from_tokenizers(name, tokenizer, folder, lines)
    return failures + plain_models(folder, lines)


def plain_models(folder, lines):
    """Models on characters: SentencePiece-like BPE and Unigram, unknown tokens, other pre-tokenizers."""
    P, N, D = pre_tokenizers, normalizers, decoders
    failures = 0
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    llama_decoder = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
    for name, pre, norm, decoder, fallback, unk in [
        ("llama2", None, N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]), llama_decoder, True, "<unk>"),
        ("metaspace-first", P.Metaspace(prepend_scheme="first", split=False), None, llama_decoder, True, "<unk>"),
        ("metaspace-split", P.Metaspace(prepend_scheme="always", split=True), None, D.Metaspace(prepend_scheme="always"), False, "<unk>"),
        ("whitespace", P.Whitespace(), N.NFKD(), None, False, None),
        ("bert-pre", P.BertPreTokenizer(), N.BertNormalizer(), None, False, "<unk>"),
        ("words", P.Sequence([P.WhitespaceSplit(), P.Punctuation()]), None, None, False, "<unk>"),
    ]:
        tokenizer = Tokenizer(models.BPE(unk_token=unk, fuse_unk=name in ("llama2", "metaspace-first")))
        if norm:
            tokenizer.normalizer = norm
        tokenizer.pre_tokenizer = P.Metaspace(split=True) if pre is None or name == "metaspace-first" else pre
        trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=["<unk>", "<s>", "</s>"] + bytes_, limit_alphabet=150, show_progress=False)
        tokenizer.train_from_iterator(corpus(), trainer)
        state = json.loads(tokenizer.to_str())
        state["model"]["byte_fallback"] = fallback
        state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in ("<unk>", "<s>", "</s>")]
        tokenizer = Tokenizer.from_str(json.dumps(state))
        if pre is not None:
            tokenizer.pre_tokenizer = pre
        else:
            state = json.loads(tokenizer.to_str())
            state["pre_tokenizer"] = None
            tokenizer = Tokenizer.from_str(json.dumps(state))
        if decoder:
            tokenizer.decoder = decoder
        failures += from_tokenizers(name, tokenizer, folder, lines)
    for name, fallback, pre in [("unigram", True, P.Metaspace(prepend_scheme="always", split=True)), ("unigram-whole", True, P.Metaspace(prepend_scheme="first", split=False)),
                                ("unigram-unk", False, P.Metaspace(prepend_scheme="never"))]:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = P.Metaspace(split=True)
        trainer = trainers.UnigramTrainer(vocab_size=1200, special_tokens=["<unk>", "<s>", "</s>"] + (bytes_ if fallback else []), unk_token="<unk>", show_progress=False,
                                          initial_alphabet=[])
        tokenizer.train_from_iterator([line for line in corpus() if line.isascii()], trainer)
        state = json.loads(tokenizer.to_str())
        state["model"]["byte_fallback"] = fallback
        state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in ("<unk>", "<s>", "</s>")]
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.pre_tokenizer = pre
        tokenizer.decoder = D.Sequence([D.ByteFallback(), D.Metaspace(prepend_scheme=pre.prepend_scheme)])
        failures += from_tokenizers(name, tokenizer, folder, lines)
    return failures


def from_transformers(name, path, tokenizer, lines, special_ok=True):
    backend = tokenizer.backend_tokenizer
    sizes[name] = len(tokenizer)

    def encode(text, special, special_in_text):
        backend.encode_special_tokens = not special_in_text
        return backend.encode(text, add_special_tokens=special and special_ok).ids

    return compare(name, path, lines, encode, lambda ids, skip: backend.decode(ids, skip_special_tokens=skip))


def sentencepiece_models(folder, lines):
    text = folder / "corpus.txt"
    text.write_text("\n".join(line.replace("\n", " ").replace("\r", " ").replace("\x00", "") for line in corpus()), encoding="utf-8")
    failures = 0
    llama = dict(normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True)
    for name, kind, options in [
        ("spm-bpe-llama", "bpe", llama),
        ("spm-bpe-plain", "bpe", dict(normalization_rule_name="identity", byte_fallback=True)),
        ("spm-bpe-user", "bpe", dict(normalization_rule_name="identity", byte_fallback=True, remove_extra_whitespaces=False, add_dummy_prefix=False, user_defined_symbols=["[INST]", "pruning"])),
        ("spm-unigram-identity", "unigram", dict(normalization_rule_name="identity", byte_fallback=True)),
        ("spm-unigram-nmt", "unigram", dict()),
        ("spm-unigram-nfkc", "unigram", dict(normalization_rule_name="nfkc_cf", byte_fallback=True, user_defined_symbols=["[INST]"])),
    ]:
        prefix = folder / name
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(prefix), model_type=kind, vocab_size=1200, character_coverage=0.98, minloglevel=2,
                                                 hard_vocab_limit=False, num_threads=1, **options)
        model = f"{prefix}.model"
        kwargs = dict(vocab_file=model)
        if name == "spm-bpe-llama":
            local = transformers.LlamaTokenizerFast._convert_from_sentencepiece(model, dict(kwargs))
            tokenizer = transformers.LlamaTokenizerFast(**local, add_bos_token=True, add_eos_token=False)
        else:
            backend = transformers.tokenization_utils_tokenizers.TokenizersBackend
            tokenizer = backend(**backend._convert_from_sentencepiece(model, dict(kwargs)))
        failures += from_transformers(name, model, tokenizer, lines, special_ok=name == "spm-bpe-llama")
    return failures


def gguf_reference(path, pre):
    """The tokenizer.json pipeline behind a GGUF name, on the tokens and merges of the file."""
    import gguf
    reader = gguf.GGUFReader(str(path))
    get = lambda key: reader.fields["tokenizer.ggml." + key].contents()
    tokens, merges, types = get("tokens"), get("merges"), get("token_type")
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges], ignore_merges=pre == "llama-bpe"))
    P = pre_tokenizers
    patterns = {"llama-bpe": LLAMA3, "qwen2": QWEN2}
    if pre in patterns:
        tokenizer.pre_tokenizer = P.Sequence([P.Split(Regex(patterns[pre]), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])
        if pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
    elif pre == "smollm":
        tokenizer.pre_tokenizer = P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)])
    else:
        tokenizer.pre_tokenizer = P.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t, k in zip(tokens, types) if k == 4])
    return tokenizer


def gguf_files(lines):
    found = [os.environ["ESPALIER_SMOLLM2"]] if os.environ.get("ESPALIER_SMOLLM2") else sorted(map(str, (SOURCE / ".deps").glob("**/*smol*.gguf")))[:1]
    cases = [(f, "smollm") for f in found]
    if not found:
        print("note: no SmolLM2 GGUF file ($ESPALIER_SMOLLM2); its tokenizer is not compared")
    vocabs = os.environ.get("ESPALIER_GGUF_VOCABS")
    if vocabs:
        cases += [(os.path.join(vocabs, f"ggml-vocab-{n}.gguf"), n) for n in ("llama-bpe", "qwen2", "gpt-2", "llama-spm", "phi-3")]
    failures = 0
    for path, pre in cases:
        name = "gguf-" + pre
        if pre in ("llama-spm", "phi-3"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), local_files_only=True)
            failures += from_transformers(name, path, tokenizer, lines)
            continue
        tokenizer = gguf_reference(path, pre)
        sizes[name] = tokenizer.get_vocab_size()

        def encode(text, special, special_in_text):
            tokenizer.encode_special_tokens = not special_in_text
            return tokenizer.encode(text, add_special_tokens=False).ids

        def plain(line_encode):
            return lambda text, special, special_in_text: line_encode(text, False, special_in_text)

        if pre == "llama-bpe":  # BOS comes from the name of the pre-tokenizer there
            encode_with = lambda text, special, special_in_text: ([128000] if special else []) + encode(text, False, special_in_text)
        else:
            encode_with = plain(encode)
        failures += compare(name, path, lines, encode_with, lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip))
    return failures


def probe_run(*arguments):
    result = subprocess.run([str(PROBE), *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"probe {arguments}: {result.stderr}")


def load_written(folder, model_type="llama"):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": ["X"], "vocab_size": 1}))
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def round_trip(name, tokenizer, folder, lines):
    """Folder -> GGUF -> folder: ours reads the GGUF, transformers reads the last folder, both give the first one's ids."""
    first, gguf_file, last = folder / f"{name}-first", folder / f"{name}.gguf", folder / f"{name}-last"
    first.mkdir()
    tokenizer.save(str(first / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": "{{ messages[0].content }}"}
    (first / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named}))
    rows = tokenizer.get_vocab_size() + 3
    probe_run("--to-gguf", first, gguf_file, rows)
    probe_run("--to-hf", gguf_file, last)
    original, written = load_written(first), load_written(last)
    failures = from_transformers(name + "->gguf", gguf_file, original, lines)
    failures += from_transformers(name + "->gguf->hf", last, written, lines)
    probe = Probe(first)
    for line in lines[:400]:
        a, b = original.encode(line), written.encode(line)
        if a != b:
            failures += 1
            print(f"  {name}: transformers on both folders, {line!r}: {a} {b}")
    probe.close()
    if original.chat_template != written.chat_template or len(written) != rows:
        failures += 1
        print(f"  {name}: chat template or length ({len(written)}, expected {rows})")
    return failures


def exported(folder, lines):
    P, N, D = pre_tokenizers, normalizers, decoders
    split = lambda pattern: P.Split(Regex(pattern), "isolated")
    failures = 0

    def plain(pre, normalizer=None, ignore_merges=False):
        tokenizer = byte_level(pre, normalizer, 1500, ignore_merges, bos=False)
        state = json.loads(tokenizer.to_str())
        # GGUF keeps of added tokens only their text and whether they are special.
        for token in state["added_tokens"]:
            token.update(lstrip=False, rstrip=False, normalized=False, single_word=False)
        state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != "  "]
        for index, token in enumerate(t for t in state["added_tokens"] if t["id"] >= 1500):
            token["id"] = 1500 + index
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        return tokenizer

    for name, tokenizer in {
        "gpt-2": plain(P.ByteLevel(add_prefix_space=False)),
        "smollm": plain(P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)])),
        "llama-bpe": plain(P.Sequence([split(LLAMA3), P.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True),
        "qwen2": plain(P.Sequence([split(QWEN2), P.ByteLevel(add_prefix_space=False, use_regex=False)]), N.NFC()),
    }.items():
        failures += round_trip("export-" + name, tokenizer, folder, lines)
    spm = Tokenizer.from_file(str(folder / "metaspace-first.json"))
    failures += round_trip("export-spm", spm, folder, lines)
    for path in [os.environ.get("ESPALIER_SMOLLM2")] + [os.path.join(os.environ.get("ESPALIER_GGUF_VOCABS", "/nonexistent"), f"ggml-vocab-{n}.gguf") for n in ("llama-bpe", "llama-spm", "qwen2")]:
        if path and os.path.exists(path):
            last = folder / ("hf-" + os.path.basename(path))
            probe_run("--to-hf", path, last)
            failures += from_transformers("hf of " + os.path.basename(path), path, load_written(last, "qwen2" if "qwen2" in path else "llama"), lines[:600])
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if not PROBE.exists():
        print(f"skipped: {PROBE} is not built (ninja espalier_tokenizer_probe)")
        return 77
    lines = make_lines(options.lines)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for part in (trained, sentencepiece_models, exported, lambda f, l: gguf_files(l)):
            name = getattr(part, "__name__", "")
            if options.only and options.only not in (name if name != "<lambda>" else "gguf_files"):
                continue
            failures += part(folder, lines)
    versions = f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}, sentencepiece {sentencepiece.__version__}"
    print(f"tokenizer: {failures} differences over {len(sizes)} tokenizers x {len(lines)} lines ({versions})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
