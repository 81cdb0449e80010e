"""Small files of texts, of the names and the format of the real ones, and an encoder of a few thousand numbers."""

import json

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM

from bisam.training.data import glue

WORDS = ["the", "a", "man", "woman", "dog", "bird", "tree", "runs", "sings", "sees", "sleeps", "not", "here", "there", ".", '"']
GERMAN = ["der", "eine", "Mann", "Frau", "Hund", "Vogel", "Baum", "läuft", "singt", "sieht", "schläft", "nicht", "hier", "dort", ".", '"']
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def sentence(draw, words=WORDS, least=2, most=7):
    length = int(torch.randint(least, most + 1, (), generator=draw))
    return " ".join(words[k] for k in torch.randint(len(words), (length,), generator=draw).tolist())


def rows_of(task, n, seed=0):
    """Rows of a task with labels by turns."""
    draw, form, rows = torch.Generator().manual_seed(seed), glue.TASKS[task], []
    for k in range(n):
        row = [f"{column}-{k}" for column in range(form.columns)]
        for column in form.texts:
            row[column] = sentence(draw)
        row[form.label] = form.labels[k % 2] if form.labels else f"{(k % 11) / 2:.3f}"
        rows.append(row)
    return rows


def write_rows(path, task, rows, mark=""):
    header = glue.TASKS[task].header
    names = [] if header is None else [names_of(task)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(mark + "".join("\t".join(row) + "\n" for row in [*names, *rows]), encoding="utf-8")


def names_of(task):
    """The header of a file, whose names hold blanks in one of the tasks."""
    return ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"] if task == "mrpc" else glue.TASKS[task].header.split()


def write_glue(root, task="rte", n=40, tested=12, encoder="small"):
    """The two files of a task and a tokeniser; the name of the data."""
    for part, count, seed in (("train", n, 1), ("dev", tested, 2)):
        write_rows(root / "glue" / glue.TASKS[task].folder / f"{part}.tsv", task, rows_of(task, count, seed))
    write_tokeniser(root / encoder)
    return f"glue:{task}:{encoder}"


def write_tokeniser(folder, words=WORDS):
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {word: k for k, word in enumerate([*SPECIAL, *words])}
    found = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    found.normalizer, found.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    found.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))


def write_encoder(root, name="small", **changes):
    """A BERT with a head for masked words, as encoders are published; its tokeniser too."""
    write_tokeniser(root / name)
    config = BertConfig(**{
        "vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 128, **changes,
    })  # fmt: skip
    BertForMaskedLM(config).save_pretrained(root / name)
    return f"encoder:{name}"


def write_parallel(root, name="small", parts=("train", "valid", "test"), counts=(40, 8, 6)):
    """Sentences of both languages, word by word the same; the name of the data."""
    (root / name).mkdir(parents=True, exist_ok=True)
    for seed, (part, n) in enumerate(zip(parts, counts, strict=True)):
        for language, words in (("de", GERMAN), ("en", WORDS)):
            draw = torch.Generator().manual_seed(seed)
            (root / name / f"{part}.{language}").write_text("".join(sentence(draw, words) + "\n" for _ in range(n)), encoding="utf-8")
    return f"parallel:{name}"
