"""Training rows of instruction, completion and chat data: ids and labels equal those of an independent implementation on
transformers' tokenizers and apply_chat_template, on SmolLM2 (where it is there) and on tiny tokenizers of both kinds.

    tests/parity/run.sh sft
"""
import gzip
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import transformers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
try:
    import pyarrow.parquet
except ImportError:
    pyarrow = None

SOURCE = pathlib.Path(os.environ.get("ESPALIER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("ESPALIER_BUILD", SOURCE / "build"))
PROBE = BUILD / "tests" / "parity" / "espalier_sft_probe"
TOKENIZER_PROBE = BUILD / "tests" / "parity" / "espalier_tokenizer_probe"
SMOLLM2 = os.environ.get("ESPALIER_SMOLLM2")

INTRO = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
INTRO_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further context. "
               "Write a response that appropriately completes the request.")
CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
          "Answer well.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
HEADERS = ("{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim + '<|im_end|>' }}"
           "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}")
INST = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}")
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|stop|>", "[INST]", "[/INST]"]

WORDS = ("the old boat lay on dry sand and nobody knew why it had been left there, so they asked: how many years? Twelve! "
         "naïve café 東京 👍 print(f'{x:>8}') ### Response: <b> 3.14 tabs\there  double  blanks").split(" ")


def sentence(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def make_data(seed):
    rng = random.Random(seed)
    alpaca, dolly, completion, chat = [], [], [], []
    for i in range(40):
        words = rng.choice([3, 8, 20, 60])
        alpaca.append({"instruction": sentence(rng, words), "input": rng.choice(["", "", sentence(rng, 6), "\nline\n"]),
                       "output": "" if i == 7 else rng.choice(["", " ", "\n"]) + sentence(rng, rng.choice([1, 5, 40]))})
        dolly.append({"instruction": sentence(rng, words).replace("### Response:", "###"), "context": rng.choice(["", sentence(rng, 9)]),
                      "response": "" if i == 3 else sentence(rng, rng.choice([2, 30])), "category": "open_qa"})
        completion.append({"prompt": sentence(rng, words) + rng.choice(["", " ", "\n"]), "completion": rng.choice(["", " "]) + sentence(rng, 7)})
        turns = [{"role": "system", "content": sentence(rng, 4)}] if i % 3 == 0 else []
        for turn in range(rng.choice([1, 2, 3])):
            turns += [{"role": "user", "content": sentence(rng, rng.choice([1, 9]))},
                      {"role": "assistant", "content": rng.choice(["", " ", "\n"]) + sentence(rng, rng.choice([1, 4, 30])) + rng.choice(["", "\n"])}]
        if i % 5 == 0:
            turns.append({"role": "user", "content": "and?"})
        chat.append({"messages": turns})
    return {"alpaca": alpaca, "dolly": dolly, "completion": completion, "chat": chat}


# ------------------------------------------------------------------------------------------- the other implementation


class Reference:
    def __init__(self, tokenizer, cutoff):
        self.tokenizer, self.cutoff, self.eos = tokenizer, cutoff, tokenizer.eos_token_id
        # Does the tokenizer put EOS behind every text by itself?
        self.appends = int(len(tokenizer("a b")["input_ids"]) > 1 and tokenizer("a b")["input_ids"][-1] == self.eos)

    def encode(self, text):
        return self.tokenizer(text, truncation=True, max_length=self.cutoff, padding=False)["input_ids"]

    def answer(self, prompt, answer):
        """As the published training script: EOS where there is room, labels from the prompt's own length on."""
        if not answer:
            return "without_answer"
        full, user = self.encode(prompt + answer), self.encode(prompt)
        masked = len(user) - self.appends
        if masked >= len(full) - self.appends:
            return "answer_cut"
        if full[-1] != self.eos and len(full) < self.cutoff:
            full = full + [self.eos]
        return {"ids": full, "labels": [-100] * masked + full[masked:]}

    def alpaca(self, row):
        if row["input"]:
            prompt = f"{INTRO_INPUT}\n\n### Instruction:\n{row['instruction']}\n\n### Input:\n{row['input']}\n\n### Response:\n"
        else:
            prompt = f"{INTRO}\n\n### Instruction:\n{row['instruction']}\n\n### Response:\n"
        return self.answer(prompt, row["output"])

    def completion(self, row):
        return self.answer(row["prompt"], row["completion"])

    def dolly(self, row, compat=False):
        if not row["response"]:
            return "without_answer"
        head = f"{INTRO}\n\n### Instruction:\n{row['instruction']}\n\n"
        if row["context"]:
            head += f"Input:\n{row['context']}\n\n"
        head += "### Response:\n"
        ids = self.tokenizer(head + row["response"] + "\n\n### End", truncation=True, max_length=self.cutoff)["input_ids"]
        if len(ids) >= self.cutoff:
            return "too_long"
        if compat:
            key = self.tokenizer.encode("### Response:\n")
            masked = ids.index(key[0]) + 1
            return {"ids": ids, "labels": [-100] * masked + ids[masked:]}
        masked = len(self.tokenizer(head)["input_ids"]) - self.appends
        if ids[-1] != self.eos:
            ids = ids + [self.eos]
        return {"ids": ids, "labels": [-100] * masked + ids[masked:]}

    def chat(self, row):
        messages = row["messages"]
        render = lambda part, prompt: self.tokenizer.apply_chat_template(part, add_generation_prompt=prompt, tokenize=True, return_dict=False)
        ids = render(messages, False)
        special = set(self.tokenizer.all_special_ids) | {self.tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
        labels = [-100] * len(ids)
        for k, message in enumerate(messages):
            if message["role"] != "assistant" or not message["content"].strip():
                continue
            start = render(messages[:k], True)
            begin = next((i for i, (a, b) in enumerate(zip(start, ids)) if a != b), len(start))
            end = next(i for i in range(begin, len(ids)) if ids[i] in special)
            labels[begin:end + 1] = ids[begin:end + 1]
        if all(label == -100 for label in labels[1:]):
            return "without_answer"
        ids, labels = ids[:self.cutoff], labels[:self.cutoff]
        return {"ids": ids, "labels": labels} if any(label != -100 for label in labels[1:]) else "answer_cut"


# ------------------------------------------------------------------------------------------------------------ tokenizers


def make_tokenizer(folder, kind, template):
    texts = [text for name, rows in make_data(9).items() for row in rows for text in [json.dumps(row, ensure_ascii=False)]] + [INTRO, INTRO_INPUT] * 20
    if kind == "metaspace":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        alphabet, extra = [], ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet, extra = pre_tokenizers.ByteLevel.alphabet(), []
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=extra + SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    bos, eos = (("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>")))
    single = {"plain": "$A", "bos": "<s> $A", "metaspace": "<s> $A", "both": "<s> $A </s>"}[kind]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[bos, eos])
    folder.mkdir()
    data = json.loads(tokenizer.to_str())
    if kind == "metaspace":  # byte tokens are ordinary tokens of the vocabulary
        data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "chat_template": template}))
    return folder


def probe(model, data, **options):
    command = [str(PROBE), str(model), str(data)] + [f"{key}={value}" for key, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        return [], {"error": done.stderr.strip()}
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]


def compare(name, model, file, rows, reference, **options):
    expected, counts = [], {"without_answer": 0, "answer_cut": 0, "too_long": 0}
    for row in rows:
        result = reference(row)
        if isinstance(result, str):
            counts[result] += 1
        else:
            expected.append(result)
    got, found = probe(model, file, **options)
    if found.get("read") != len(rows) or any(found[key] != value for key, value in counts.items()):
        print(f"  {name}: counts {found}, expected {counts} of {len(rows)}")
        return 1
    for i, (ours, theirs) in enumerate(zip(got, expected)):
        if ours != theirs:
            where = next((p for p, (a, b) in enumerate(zip(ours["ids"], theirs["ids"])) if a != b), min(len(ours["ids"]), len(theirs["ids"])))
            label = next((p for p, (a, b) in enumerate(zip(ours["labels"], theirs["labels"])) if a != b), -1)
            print(f"  {name}: trained row {i}: ids differ from {where} of {len(ours['ids'])}/{len(theirs['ids'])}, labels from {label}")
            return 1
    return 0 if len(got) == len(expected) else 1


def main():
    if not PROBE.exists():
        print(f"skipped: {PROBE} is not built (ninja espalier_sft_probe)")
        return 77
    failures = cases = rows = 0
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        data = make_data(1)
        files = {}
        for kind, items in data.items():
            files[kind] = base / f"{kind}.jsonl"
            files[kind].write_text("".join(json.dumps(row, ensure_ascii=bool(i % 2)) + "\n" for i, row in enumerate(items)), encoding="utf-8")
        folders = {f"{kind}/{shape}": make_tokenizer(base / f"{kind}-{shape}", kind, template)
                   for kind in ("plain", "bos", "both", "metaspace")
                   for shape, template in {"chatml": CHATML, "headers": HEADERS, "inst": INST}.items()}
        if SMOLLM2 and TOKENIZER_PROBE.exists():
            folders["smollm2"] = base / "smollm2"
            subprocess.run([str(TOKENIZER_PROBE), "--to-hf", SMOLLM2, str(folders["smollm2"])], check=True)
        for model, folder in folders.items():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
            for cutoff in (48, 256, 1024):
                reference = Reference(tokenizer, cutoff)
                checks = {"alpaca": reference.alpaca, "completion": reference.completion, "dolly": reference.dolly, "chat": reference.chat}
                for kind, function in checks.items():
                    if kind == "dolly" and cutoff == 48:
                        continue  # every row is longer, which is an error, not rows
                    failures += compare(f"{model} {kind} {cutoff}", folder, files[kind], data[kind], function, cutoff=cutoff)
                    cases += 1
                    rows += len(data[kind])
                if cutoff > 48:
                    failures += compare(f"{model} dolly compat {cutoff}", folder, files["dolly"], data["dolly"], lambda row: reference.dolly(row, True),
                                        cutoff=cutoff, dolly_mask="compat")
                    cases += 1
        # The same rows from every form of the file.
        folder = folders["bos/chatml"]
        wanted = probe(folder, files["chat"], cutoff=256)
        text = files["chat"].read_bytes()
        forms = {"chat.json": json.dumps(data["chat"], indent=1).encode(), "chat.jsonl.gz": gzip.compress(text),
                 "share.jsonl": "".join(json.dumps({"conversations": [{"from": {"user": "human", "assistant": "gpt"}.get(m["role"], "system"), "value": m["content"]}
                                                                      for m in row["messages"]]}) + "\n" for row in data["chat"]).encode()}
        if pyarrow:
            forms["chat.jsonl.zst"] = pyarrow.compress(text, codec="zstd", asbytes=True)
        for form, content in forms.items():
            (base / form).write_bytes(content)
            got = probe(folder, base / form, cutoff=256)
            cases += 1
            if got != wanted:
                failures += 1
                print(f"  {form}: rows differ from those of the JSON Lines: {got[1]}")
        if pyarrow:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(data["chat"]), base / "chat.parquet")
            got = probe(folder, base / "chat.parquet", cutoff=256)
            if "built without Arrow" in got[1].get("error", ""):
                print("  Parquet left out: this build has no Arrow")
            else:
                cases += 1
                if got != wanted:
                    failures += 1
                    print(f"  chat.parquet: rows differ from those of the JSON Lines: {got[1]}")
    smol = "SmolLM2 and " if "smollm2" in folders else ""
    print(f"sft rows: {failures} differences in {cases} files of {rows} rows, {smol}{len(folders) - bool(smol)} tiny tokenizers (transformers {transformers.__version__})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
