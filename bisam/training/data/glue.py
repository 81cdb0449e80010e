r"""Tasks of GLUE, read from its own files and turned into the tokens of an encoder.

.. math:: t_{\lfloor s \rfloor} = 1 - (s - \lfloor s \rfloor), \qquad t_{\lfloor s \rfloor + 1} = s - \lfloor s \rfloor
    \qquad \text{for a score } s \in [0, 5]

are the shares of the six grades that a score of STS-B becomes: the mean grade is the score, and every loss over classes is defined.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _checks
from . import tokens
from .images import ROOT, DataError, division, stamp
from .task import Split
from .tokens import Tokens

__all__ = ["GRADES", "LONGEST", "PREFIX", "TASKS", "Form", "grades"]

PREFIX = "glue:"
LONGEST = 128  # tokens of a sample; what is longer is cut
GRADES = 6  # 0 .. 5 of STS-B


class Form(NamedTuple):
    """How the files of a task are made.

    Args:
        folder: below ``glue``.
        columns: how many each line has.
        texts: the columns of the one or two sentences.
        label: its column.
        labels: what can stand there, in the order of the class numbers; empty for a score.
        metrics: what the task is judged by.
        header: the first line; ``None`` if there is none.

    Example:
        >>> TASKS["rte"].labels
        ('entailment', 'not_entailment')
    """

    folder: str
    columns: int
    texts: tuple[int, ...]
    label: int
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    header: str | None = "index sentence1 sentence2 label"


BINARY, ENTAILMENT = ("0", "1"), ("entailment", "not_entailment")
TASKS = {
    "cola": Form("CoLA", 4, (3,), 1, BINARY, ("accuracy", "matthews"), None),
    "mrpc": Form("MRPC", 5, (3, 4), 0, BINARY, ("accuracy", "f1"), "Quality #1 ID #2 ID #1 String #2 String"),
    "rte": Form("RTE", 4, (1, 2), 3, ENTAILMENT),
    "sts-b": Form(
        "STS-B", 10, (7, 8), 9, (), ("accuracy", "pearson", "spearman"),
        "index genre filename year old_index source1 source2 sentence1 sentence2 score",
    ),
    "sst-2": Form("SST-2", 2, (0,), 1, BINARY, header="sentence label"),
    "qnli": Form("QNLI", 4, (1, 2), 3, ENTAILMENT, header="index question sentence label"),
    "wnli": Form("WNLI", 4, (1, 2), 3, BINARY),
}  # fmt: skip
NAMES = rf"{PREFIX}({'|'.join(map(re.escape, TASKS))}):\w[\w.-]*"
ARCHIVES = {"QNLI": "QNLIv2"} | {form.folder: form.folder for form in TASKS.values() if form.folder not in ("QNLI", "MRPC")}


class Encoded(NamedTuple):
    """All rows of a file: the numbers of their tokens, which sentence each token is of, and their targets."""

    ids: list[list[int]]
    types: list[list[int]]
    targets: Tensor

    def split(self, index: Tensor, padding: int) -> Split:
        """The rows at the given places, padded to the longest of them."""
        ids, types = ([part[k] for k in index.tolist()] for part in (self.ids, self.types))
        mask = tokens.padded([[1] * len(row) for row in ids], 0)
        inputs = {"input_ids": tokens.padded(ids, padding), "attention_mask": mask, "token_type_ids": tokens.padded(types, 0)}
        return Split(inputs, self.targets[index])


def load(name: str, root: Path, train_rows: int | None, test_rows: int | None, split_seed: int) -> Tokens:
    """The task ``glue:TASK:FOLDER``; the arguments have been checked."""
    return _divided(name, root, stamp(_files(name, root)), train_rows, test_rows, split_seed)


def _parts(name: str) -> tuple[Form, str]:
    task, _, folder = name.removeprefix(PREFIX).partition(":")
    return TASKS[task], folder


def _files(name: str, root: Path) -> list[Path]:
    """The two files of a task and the tokeniser; a ``DataError`` says which is missing, and how to get it."""
    form, encoder = _parts(name)
    folder = root / "glue" / form.folder
    for path in (folder / "train.tsv", folder / "dev.tsv"):
        if not path.is_file():
            needed = f"Needed are train.tsv and dev.tsv of GLUE in {folder} ({ROOT})"
            raise DataError(f"data {name!r} is not there: no file {path}. {needed}. {_how_to_fetch(form, root)}")
    tokeniser = root / encoder / "tokenizer.json"
    if not tokeniser.is_file():
        why = f"{encoder} in the name is the folder of the encoder below the root, with its tokeniser"
        raise DataError(f"data {name!r} is not there: no file {tokeniser}; {why} ({ROOT}). {tokens.to_fetch(tokeniser.parent)}")
    return [folder / "train.tsv", folder / "dev.tsv", tokeniser]


def _how_to_fetch(form: Form, root: Path) -> str:
    if form.folder not in ARCHIVES:
        return "https://gluebenchmark.com/tasks says how they are made from the Microsoft Research Paraphrase Corpus"
    address = f"https://dl.fbaipublicfiles.com/glue/data/{ARCHIVES[form.folder]}.zip"
    return f"Fetch them with: curl -L -o {form.folder}.zip {address} && unzip {form.folder}.zip -d {root / 'glue'}"


@functools.lru_cache(maxsize=2)
def _divided(name: str, root: Path, key: str, train_rows: int | None, test_rows: int | None, split_seed: int) -> Tokens:
    form, encoder = _parts(name)
    train, test = _encoded(name, root, key)
    kept, held, tested = division(name, root, len(train.ids), len(test.ids), train_rows, test_rows, split_seed, "rows")
    path = root / encoder / "tokenizer.json"
    padding = tokens.padding_of(tokens.tokeniser(path), path.parent)
    splits = train.split(kept, padding), train.split(held, padding), test.split(tested, padding)
    classes = len(form.labels) or GRADES
    return Tokens(name, classes, *splits, metrics=form.metrics, vocabulary=tokens.vocabulary_of(path))


@functools.lru_cache(maxsize=2)
def _encoded(name: str, root: Path, key: str) -> tuple[Encoded, Encoded]:
    """The rows of train.tsv and dev.tsv, read and encoded once while the files stay as they are."""
    form, _ = _parts(name)
    train, dev, path = _files(name, root)
    found = tokens.tokeniser(path)
    found.no_padding()
    found.enable_truncation(LONGEST)
    parts = []
    for file in (train, dev):
        rows = _rows(name, form, file)
        # One at a time: the library's threads would make it write a warning in every process that forks later.
        codes = [found.encode(*(row[column] for column in form.texts)) for row in rows]
        parts.append(Encoded([code.ids for code in codes], [code.type_ids for code in codes], _targets(name, form, file, rows)))
    return parts[0], parts[1]


def _rows(name: str, form: Form, path: Path) -> list[list[str]]:
    """The columns of each line; quotes are part of the text."""
    found = [line.split("\t") for line in tokens.lines(name, path)]
    if form.header is not None:
        if " ".join(found[0]) != form.header:
            raise DataError(f"data {name!r}: {path} must begin with the names of its columns, {form.header!r}; got {_checks.shown(' '.join(found[0]))}")
        found = found[1:]
    if not found:
        raise DataError(f"data {name!r}: {path} has no rows below its header. Restore it")
    broken = [place for place, row in enumerate(found) if len(row) != form.columns]
    if broken:
        many = f"{len(broken)} of {len(found)} lines have another number"
        raise DataError(
            f"data {name!r}: {path} must have {form.columns} columns; {many}, the first is {_line(form, broken[0])} with {len(found[broken[0]])}. Mend it or take it out"
        )
    return found


def _line(form: Form, place: int) -> str:
    """How a row is found in its file."""
    return f"line {place + 1 + (form.header is not None)}"


def _targets(name: str, form: Form, path: Path, rows: list[list[str]]) -> Tensor:
    """Class numbers, or of scores the shares of the grades."""
    said = [row[form.label] for row in rows]
    if not form.labels:
        return grades([_score(name, form, path, place, text) for place, text in enumerate(said)])
    for place, label in enumerate(said):
        if label not in form.labels:
            raise DataError(f"data {name!r}: {path}, {_line(form, place)}: a label must be one of {', '.join(form.labels)}; got {_checks.shown(label)}")
    return torch.tensor([form.labels.index(label) for label in said])


def _score(name: str, form: Form, path: Path, place: int, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= GRADES - 1:
        raise DataError(f"data {name!r}: {path}, {_line(form, place)}: a score must be from 0 to {GRADES - 1}; got {_checks.shown(text)}")
    return score


def grades(scores: Sequence[float]) -> Tensor:
    """Scores as shares of the grades 0 .. 5, float32 of shape ``(n, 6)``, whose means they are.

    Args:
        scores: numbers from 0 to 5.

    Source:
        Tai, Socher and Manning (2015), section 4.2.

    Example:
        >>> grades([3.75])
        tensor([[0.0000, 0.0000, 0.0000, 0.2500, 0.7500, 0.0000]])
    """
    exact = torch.tensor(scores, dtype=torch.float64).unsqueeze(1)
    return (1 - (exact - torch.arange(GRADES, dtype=torch.float64)).abs()).clamp_min(0).float()
