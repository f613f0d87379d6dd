"""Tasks of `eval` against lm-eval on the same tiny model: prompts, log-likelihoods, metrics, errors, groups, files.

Every task reads a small file in its published layout, written here; lm-eval reads the same documents in the form its task
descriptions expect (its own YAML, with the data set replaced by a local file; few-shot examples are its sampler `first_n`).
Runs: 0-shot, 2-shot, prompts and pages longer than the model's context, a tokenizer with BOS, the same with BOS off.
What is compared: each request's text and log-likelihood (1e-3), greedy flags, scores of each document, aggregated metrics
and standard errors, groups, the keys of the results file. LAMBADA's perplexity error is bootstrapped there, which means little
for a random model: ours is compared with the delta method on lm-eval's log-likelihoods.
Exit codes: 0 equal, 77 a package or program is missing, 1 not equal.
"""

import csv
import json
import logging
import math
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from comparison import TINY, check, checks, espalier

try:
    import lm_eval.tasks
    from lm_eval import evaluator
    from lm_eval.api.group import Group
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks._yaml_loader import load_yaml
except ImportError as error:
    print(f"skipped: a Python package is missing ({error}); needs lm_eval, datasets")
    sys.exit(77)

logging.disable(logging.WARNING)
CONFIGS = pathlib.Path(lm_eval.tasks.__file__).parent
RANDOM = random.Random(5)
WORDS = "rain Spain falls mainly the a of plain naïve cat's 12 (two) été 問題 don't; well-known U.S. 😀".split()
METRICS = {"acc", "acc_norm", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"}


def words(low=2, high=9):
    return " ".join(RANDOM.choice(WORDS) for _ in range(RANDOM.randint(low, high)))


def choices(count=4):
    return [words(1, 5) + f" {i}" for i in range(count)]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_csv(path, rows, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(([header] if header else []) + rows)


class Data:
    """Both forms of every task's documents: the published layout below `ours`, one file a split below `theirs`."""

    def __init__(self, work):
        self.ours, self.theirs, self.files = work / "data", work / "hub", {}

    def hub(self, task, **splits):
        self.files[task] = {}
        for split, rows in splits.items():
            path = self.theirs / task / f"{split}.json"
            write_lines(path, rows)
            self.files[task][split] = str(path)

    def piqa(self):
        rows = {split: [{"goal": words() + end, "sol1": words(), "sol2": words() + end, "label": RANDOM.randint(0, 1)}
                        for end in ("", " ", "\n", "?", ".")] for split in ("train", "validation")}
        for split, name in (("train", "train"), ("validation", "valid")):
            write_lines(self.ours / "piqa" / f"{name}.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in rows[split]])
            (self.ours / "piqa" / f"{name}-labels.lst").write_text("".join(f"{row['label']}\n" for row in rows[split]))
        self.hub("piqa", **rows)

    def hellaswag(self):
        markup = ["", " [header] Title [title] " + words(), "  two  spaces   three", "[substeps] x [step] y ", "ÉCOLE [a] "]
        rows = {split: [{"ind": i, "activity_label": words(1, 2), "ctx_a": words() + m, "ctx_b": RANDOM.choice(["", "THE " + words()]), "ctx": "",
                         "endings": [words() + m, m + "x", words(), words()], "source_id": "s", "split": "val", "split_type": "indomain",
                         "label": str(RANDOM.randint(0, 3))} for i, m in enumerate(markup)] for split in ("train", "validation")}
        for split, name in (("train", "train"), ("validation", "val")):
            write_lines(self.ours / f"hellaswag_{name}.jsonl", [{**row, "label": int(row["label"])} for row in rows[split]])
        self.hub("hellaswag", **rows)

    def labelled(self, task, stem_name, paths, counts=(4,), first=("A",)):
        splits = {}
        for split, path in paths.items():
            rows = []
            for i in range(5):
                count = counts[i % len(counts)]
                labels = [chr(ord(first[i % len(first)]) + j) for j in range(count)]
                rows.append({"id": f"q{i}", stem_name: words() + "?", "choices": {"text": choices(count), "label": labels},
                             "answerKey": RANDOM.choice(labels)})
            write_lines(self.ours / path, [{"id": row["id"], "question": {"stem": row[stem_name], "choices": [
                {"text": t, "label": l} for t, l in zip(row["choices"]["text"], row["choices"]["label"])]}, "answerKey": row["answerKey"]} for row in rows])
            splits[split] = rows
        self.hub(task, **splits)

    def winogrande(self):
        rows = {split: [{"sentence": f"{words()} _ {words()}.", "option1": words(1, 2), "option2": words(1, 2), "answer": RANDOM.choice("12")}
                        for _ in range(5)] for split in ("train", "validation")}
        write_lines(self.ours / "winogrande" / "train_xl.jsonl", rows["train"])
        write_lines(self.ours / "winogrande" / "dev.jsonl", rows["validation"])
        self.hub("winogrande", **rows)

    def xwinograd(self):
        (self.ours / "xwinograd").mkdir(parents=True)
        with open(self.ours / "xwinograd" / "xwinograd.tsv", "w", encoding="utf-8") as table:
            for language, count in (("en", 5), ("fr", 3)):
                rows = []
                for _ in range(count):
                    head, tail, options, right = words().split() + ["``", "it", "''"], words().split() + ["."], [words(1, 2), words(1, 2)], RANDOM.randint(0, 1)
                    spell = lambda tokens: " ".join(tokens).replace("`` ", '"').replace(" ''", '"').replace(" .", ".")
                    tokens = [*head, "it", *tail]
                    rows.append({"sentence": f"{spell(head)} _ {spell(tail)}", "option1": options[0], "option2": options[1], "answer": str(right + 1)})
                    table.write("\t".join([language, "original", "?", spell(tokens), json.dumps(tokens), json.dumps(["it", [len(head), len(head) + 1], ["it"]]),
                                           json.dumps([[o, [0, 1], [o], i == right] for i, o in enumerate(options)])]) + "\n")
                self.hub(f"xwinograd_{language}", test=rows)

    def mmlu(self):
        for subject, count in (("abstract_algebra", 3), ("anatomy", 6), ("philosophy", 4), ("marketing", 2)):
            splits = {}
            for split, rows in (("dev", 5), ("test", count)):
                splits[split] = [{"question": RANDOM.choice(["", " ", "\n"]) + words() + RANDOM.choice(["", "\nII. \"x, y\" "]), "subject": subject,
                                  "choices": choices(), "answer": RANDOM.randint(0, 3)} for _ in range(rows)]
                write_csv(self.ours / "mmlu" / "data" / split / f"{subject}_{split}.csv",
                          [[row["question"], *row["choices"], "ABCD"[row["answer"]]] for row in splits[split]])
            self.hub(f"mmlu_{subject}", **splits)

    def cmmlu(self):
        for subject, count in (("agronomy", 4), ("world_history", 3)):
            splits = {}
            for split, rows in (("dev", 5), ("test", count)):
                splits[split] = [{"Question": "以下" + words(), **dict(zip("ABCD", choices())), "Answer": RANDOM.choice("ABCD")} for _ in range(rows)]
                write_csv(self.ours / "cmmlu" / split / f"{subject}.csv", [[i, *row.values()] for i, row in enumerate(splits[split])],
                          ["", "Question", "A", "B", "C", "D", "Answer"])
            self.hub(f"cmmlu_{subject}", **splits)

    def blimp(self):
        for paradigm, count in (("adjunct_island", 5), ("wh_island", 3)):
            rows = [{"sentence_good": words(), "sentence_bad": words(), "UID": paradigm, "pairID": str(i)} for i in range(count)]
            write_lines(self.ours / "blimp" / f"{paradigm}.jsonl", rows)
            self.hub(f"blimp_{paradigm}", train=rows)

    def lambada(self):
        rows = [{"text": words(5, 12) + end} for end in ("", "\n\n\"Well", " Spain", ".")] + [{"text": "alone"}]
        write_lines(self.ours / "lambada_openai_test.jsonl", rows)
        self.hub("lambada_openai", test=rows)

    def wikitext(self):
        marks = ' @,@ 000 , x . " quoted \' text " ( in [ it ] { a } ) = = Part = = \n it \'s N 5 ° C @-@ scaled ; no / \' 3/ end ! \n'
        pages = [f" = {words(1, 2)} = \n \n " + " ".join(words(20, 40) + marks for _ in range(n)) + "\n \n" for n in (1, 4, 2)]
        (self.ours / "wiki.test.raw").write_text(" \n" + "".join(pages), encoding="utf-8")
        # The page a document holds ends before the line end in front of the next title.
        pages = [" \n" + pages[0][:0]] + pages
        rows = [{"page": page[:-1]} for page in pages[1:-1]] + [{"page": pages[-1]}]
        self.hub("wikitext", test=rows, validation=rows, train=rows)

    def write(self):
        self.piqa()
        self.hellaswag()
        self.labelled("openbookqa", "question_stem", {"train": "openbookqa/train.jsonl", "test": "openbookqa/test.jsonl"})
        for task, name in (("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")):
            self.labelled(task, "question", {split: f"{name}/{name}-{split.title()}.jsonl" for split in ("train", "test")}, (4, 3, 5), ("A", "1"))
        self.winogrande()
        self.xwinograd()
        self.mmlu()
        self.cmmlu()
        self.blimp()
        self.lambada()
        self.wikitext()


def config_file(task):
    family = task.split("_")[0]
    names = {"arc": f"arc/{task}.yaml", "winogrande": "winogrande/default.yaml", "lambada": "lambada/lambada_openai.yaml", "mmlu": f"mmlu/default/{task}.yaml",
             "blimp": f"blimp/{task.removeprefix('blimp_')}.yaml"}
    return CONFIGS / names.get(family, f"{family}/{task}.yaml")


def their_task(data, task, shots):
    config = dict(load_yaml(config_file(task), resolve_func=True))
    config.pop("tag", None)
    config.update(dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": data.files[task]})
    for split in ("training_split", "validation_split"):
        if config.get(split) not in data.files[task]:
            config.pop(split, None)
    if shots and task.split("_")[0] not in ("blimp", "wikitext"):
        config["num_fewshot"] = shots
        config["fewshot_config"] = {"sampler": "first_n"}
    return ConfigurableTask(config=config)


def their_groups(tasks):
    groups = {}
    for name in ("mmlu_stem", "mmlu_other", "mmlu_humanities", "mmlu", "cmmlu", "blimp", "xwinograd"):
        family = name.split("_")[0]
        folder = CONFIGS / ("mmlu/default" if family == "mmlu" else family)
        group = Group.from_config(load_yaml(folder / f"_{name}.yaml", resolve_func=False))
        for task in tasks.values():
            if family == "mmlu" and name != "mmlu":
                subject = load_yaml(config_file(task.task_name), resolve_func=False) if task.task_name.startswith("mmlu_") else {}
                if subject.get("tag") == f"{name}_tasks":
                    group.add(task)
            elif family != "mmlu" and task.task_name.startswith(f"{name}_"):
                group.add(task)
        if name == "mmlu":
            for part in ("mmlu_stem", "mmlu_other", "mmlu_humanities"):
                group.add(groups[part])
        groups[name] = group
    return groups


def near(found, expected, tolerance):
    return abs(found - expected) <= tolerance * max(1, abs(expected))


def compare_sample(ours, theirs, what):
    check(ours["task"] == what.split()[0] and ours["doc_id"] == theirs["doc_id"], f"{what}: order")
    arguments = [list(one.values()) for one in ours["arguments"].values()]
    check(arguments == [list(one) for one in theirs["arguments"]], f"{what} requests:\n{arguments}\n{theirs['arguments']}")
    check(ours["target"] == str(theirs["target"]), f"{what} target {ours['target']!r} here, {theirs['target']!r} there")
    for key in ("prompt_hash", "target_hash", "metrics", "filter"):
        check(ours[key] == theirs[key], f"{what} {key}: {ours[key]} here, {theirs[key]} there")
    for mine, other in zip(ours["filtered_resps"], theirs["filtered_resps"], strict=True):
        value, greedy = (mine, None) if isinstance(mine, str) else mine
        reference, flag = (other, None) if greedy is None else other
        check(near(float(value), reference, 1e-3 if greedy else 1e-5), f"{what}: log-likelihood {value} here, {reference} there")
        check(greedy is None or greedy == str(flag), f"{what}: greedy {greedy} here, {flag} there")
    for metric in ours["metrics"]:
        mine, other = ours[metric], theirs[metric]
        if isinstance(mine, list):
            check(mine[1] == other[1], f"{what} {metric} counts {mine[1]} here, {other[1]} there")
        else:
            check(near(mine, float(other), 1e-3), f"{what} {metric}: {mine} here, {other} there")


def delta_error(values):
    return math.exp(-statistics.fmean(values)) * statistics.stdev(values) / math.sqrt(len(values))


def compare_result(ours, file, theirs, task, samples):
    check(ours["n"] == theirs["sample_len"], f"{task}: {ours['n']} documents here, {theirs['sample_len']} there")
    for key, expected in theirs.items():
        metric = key.split(",")[0]
        if metric.removesuffix("_stderr") not in METRICS:
            continue
        check(key in file, f"{task}: the results file lacks {key}")
        if expected == "N/A":
            check(file[key] == "N/A", f"{task} {key} is {file[key]} here, N/A there")
            continue
        if metric == "perplexity_stderr":
            expected = delta_error([sample["perplexity"] for sample in samples])
        check(near(ours[metric], expected, 1e-3), f"{task} {metric}: {ours[metric]} here, {expected} there")
        check(file[key] == ours[metric], f"{task} {key}: {file[key]} in the results file, {ours[metric]} in the JSON document")
    check(set(theirs) == set(file), f"{task}: keys {sorted(file)} here, {sorted(theirs)} there")


GROUPS = ("mmlu", "cmmlu", "blimp", "xwinograd")


def compare(data, work, model, names, shots=0, limit=None, theirs_with=None, ours_with=(), bos=False):
    requested = list(dict.fromkeys(next((g for g in GROUPS if name.startswith(g)), name) for name in names))
    tasks = {name: their_task(data, name, shots) for name in names}
    groups = {k: v for k, v in their_groups(tasks).items() if len(v) > 0}
    lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1, **(theirs_with or {}))
    theirs = evaluator.evaluate(lm, {"tasks": tasks, "groups": groups}, bootstrap_iters=100, limit=limit)
    samples, file = work / "samples.jsonl", work / "lm-eval.json"
    ours = espalier("eval", model, "--task", ",".join(requested), "--data", data.ours, "--num-fewshot", shots, "--samples", samples,
                    "--lm-eval-json", file, "--log-level", "error", *(["--limit", limit] if limit else []), *ours_with)
    written = json.loads(file.read_text())
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    for name in tasks:
        mine = [line for line in lines if line["task"] == name]
        check(len(mine) == len(theirs["samples"][name]), f"{name}: {len(mine)} samples here, {len(theirs['samples'][name])} there")
        for a, b in zip(mine, theirs["samples"][name]):
            compare_sample(a, b, f"{name} document {a['doc_id']}")
    check(set(ours["results"]) == set(theirs["results"]), f"tasks {sorted(ours['results'])} here, {sorted(theirs['results'])} there")
    for name, expected in theirs["results"].items():
        compare_result(ours["results"][name], written["results"][name], expected, name, theirs["samples"].get(name))
    check(set(written["groups"]) == set(theirs["groups"]), "groups of the results file")
    check(ours["config"]["add_bos"] == bos, f"add_bos is {ours['config']['add_bos']}, expected {bos}")
    for part in ("n-shot", "n-samples", "higher_is_better"):
        for name, expected in theirs[part].items():
            if name in tasks:
                check(written[part][name] == expected, f"{part} of {name}: {written[part][name]} here, {expected} there")
    for name in tasks:
        check(float(written["versions"][name]) == float(theirs["versions"][name]), f"version of {name}")


def with_bos(model, folder):
    """The same model with a tokenizer that puts BOS in front."""
    shutil.copytree(model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    token = config["bos_token"] if isinstance(config["bos_token"], str) else config["bos_token"]["content"]
    number = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == token)
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
    return folder


def main():
    if not TINY.exists():
        print(f"skipped: {TINY} is not built")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.environ["HF_DATASETS_CACHE"] = str(work / "cache")
        data = Data(work)
        data.write()
        model = work / "model"
        subprocess.run([TINY, model, "--layers", "3", "--context", "2048", "--seed", "4"], check=True, stdout=subprocess.DEVNULL)
        names = list(data.files)
        compare(data, work, model, names)
        zero_shot_only = ("blimp", "xwinograd", "lambada", "wikitext")
        compare(data, work, model, [name for name in names if not name.startswith(zero_shot_only)], shots=2, limit=4)
        # Prompts that lose their beginning, pages of many windows; BOS where the tokenizer would put none.
        some = [name for name in names if name.startswith(("piqa", "hellaswag", "winogrande", "mmlu", "lambada", "blimp", "wikitext"))]
        compare(data, work, model, some, theirs_with={"max_length": 80}, ours_with=["--max-length", 80])
        bos_model = with_bos(model, work / "bos")
        compare(data, work, bos_model, some, bos=True)
        compare(data, work, bos_model, some, theirs_with={"add_bos_token": False}, ours_with=["--add-bos", "off"])
    print(f"eval: {checks()} comparisons equal")


if __name__ == "__main__":
    main()
