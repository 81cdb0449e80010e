r"""Translation from German to English: pairs of lines, byte-pair encoding of both languages together, and BLEU of greedy translations.

.. math:: L = \frac{\sum_i \sum_{t \le T_i} \ell\big(f_w(x_i, y_{i,<t}), y_{it}\big)}{\sum_i T_i}

Each token of a translation, its end included, is a row that counts as much as every other; padding is none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ... import _checks
from ...losses.task import Multiclass
from .. import scores
from . import tokens
from .bytepairs import BEGIN, END, PAD, trained
from .images import ROOT, DataError, division, stamp
from .task import Data, Split
from .tokens import longest

if TYPE_CHECKING:
    import tokenizers

__all__ = ["LANGUAGES", "LONGEST", "PREFIX", "Parallel", "Sentences", "bleu", "load"]

PREFIX = "parallel:"
LANGUAGES = ("de", "en")
LAYOUTS = (("train", "valid", "test"), ("train", "val", "test_2016_flickr"))  # of IWSLT'14, of Multi30k
LONGEST = 64  # tokens of a sentence, its end included; what is longer is cut
IGNORED = -100
AT_A_TIME = 100  # sentences that are translated together


@dataclass(frozen=True)
class Sentences(Split):
    """Pairs of sentences as tokens, and the translations as they stand in the file, which BLEU is measured against.

    Args:
        inputs: ``source`` of shape ``(n, S)`` and ``target_in`` of shape ``(n, L)``, int64, padded with 0.
        targets: the tokens that come next, shape ``(n, L)``, -100 where nothing is asked.
        references: n translations.

    Example:
        >>> row = torch.tensor([[5, 2]])
        >>> Sentences({"source": row, "target_in": row}, row, ("Yes.",)).to("cpu").references
        ('Yes.',)
    """

    references: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Sentences:
        """The same pairs on a device."""
        moved = super().to(device)
        return Sentences(moved.inputs, moved.targets, self.references)


@dataclass(frozen=True)
class Parallel(Data):
    """Pairs of sentences, in one vocabulary.

    Args:
        name, classes, train, validation, test, mean, std, task, metrics: as of :class:`~bisam.training.data.Data`; the classes are the tokens.
        tokenizer: from text to tokens and back.

    Example:
        >>> row = torch.tensor([[5, 2, 0], [5, 6, 2]])
        >>> split = Sentences({"source": row, "target_in": row}, row.where(row > 0, -100), ("Yes.", "No."))
        >>> task = Parallel("two", 9, split, split, split, task=Multiclass(axis=-1, ignore_index=-100))
        >>> task.picked(split, torch.tensor([0]))[1]
        tensor([[5, 2]])
    """

    tokenizer: tokenizers.Tokenizer | None = field(default=None, compare=False, repr=False)

    def picked(self, split: Split, index: Tensor | slice) -> tuple[dict[str, Tensor], Tensor]:
        """The pairs at the given places, without the columns that hold padding in all of them."""
        inputs, targets = super().picked(split, index)
        source, width = inputs["source"], longest(targets != IGNORED)
        cut = {"source": source[:, : longest(source != PAD)], "target_in": inputs["target_in"][:, :width]}
        return cut, targets[:, :width]

    def measured(self, model: nn.Module, split: Split, logits: Tensor | None) -> dict[str, float]:
        """BLEU of greedy translations, and what else is asked for.

        Args:
            model: the network, in evaluation mode, which can ``decode(source)``.
            split: the pairs, on the device of the network.
            logits: of all samples; not looked at for BLEU.

        Raises:
            TypeError: the network cannot translate.
        """
        found = {name: scores.score(name, logits, split.targets.cpu()) for name in self.metrics[1:] if name != "bleu"}
        if "bleu" in self.metrics:
            found["bleu"] = bleu(self.translated(model, split.inputs["source"]), split.references)
        return found

    def translated(self, model: nn.Module, source: Tensor) -> list[str]:
        """Sentences that a network makes of others, as text, in their order.

        Args:
            model: a network with ``decode(source)``, such as :class:`bisam.training.models.seq2seq.Seq2Seq`.
            source: numbers of tokens, shape ``(n, S)``.

        Raises:
            TypeError: the network has no ``decode``.
        """
        if not _checks.offers(model, "decode"):
            raise TypeError(f"metrics must leave out 'bleu' for a network that has no decode(source), such as seq2seq_small has; got {type(model).__name__}")
        said = [""] * len(source)
        # Of like length together: the longest of a batch decides how long it takes.
        for places in (source != PAD).sum(1).argsort(stable=True).split(AT_A_TIME):
            part = source[places]
            for place, ids in zip(places.tolist(), model.decode(part[:, : longest(part != PAD)]).tolist(), strict=True):
                said[place] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return said


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of translations as text, in percent, with sacrebleu's own tokens (13a) and one reference a sentence.

    Args:
        translations: n sentences.
        references: what they should be.

    Raises:
        ValueError: other numbers of both.

    Source:
        Papineni et al. (2002); Post (2018).

    Example:
        >>> round(bleu(["A man in an orange hat."], ["A man in an orange hat."]))
        100
    """
    if len(translations) != len(references):
        raise ValueError(f"references must be one for each of the {len(translations)} translations, got {len(references)}")
    return float(_checks.needs("sacrebleu", extra="language").corpus_bleu(list(translations), [list(references)], force=True).score)


class Pairs(NamedTuple):
    """The lines of a split in both languages."""

    source: list[str]
    target: list[str]


def load(name: str, root: Path, train_rows: int | None = None, test_rows: int | None = None, split_seed: int = 0) -> Parallel:
    """The pairs of ``parallel:NAME``, German to English.

    Files are ``NAME/train.de``, ``valid.de`` and ``test.de``, as IWSLT'14 has them, or ``train.de``, ``val.de`` and ``test_2016_flickr.de``, as
    Multi30k has them, and the same with ``.en``. The vocabulary is that of the training file in both languages, whatever part of it is trained
    on. A sentence is cut at 64 tokens; BLEU is measured against the whole reference.

    Args:
        name: ``"parallel:NAME"``.
        root: folder of the data sets.
        train_rows: how many of the training pairs to use, at least 10; by default all, in the order of the file.
        test_rows: how many of the test pairs to use, drawn with seed 0; by default all.
        split_seed: which of the training pairs are used; only with ``train_rows``, since the validation split is a file of its own.

    Raises:
        DataError: a file is missing, empty, in another encoding, or has another number of lines than its partner.
        ValueError: a number out of range, or a choice that would take no part.

    Example:
        >>> try:
        ...     load("parallel:none", Path("nowhere"))
        ... except DataError as error:
        ...     print(str(error)[:35])
        data 'parallel:none' is not there: 
    """
    if split_seed and train_rows is None:
        raise ValueError(f"split_seed must be left out for data {name!r}, whose validation split is a file of its own; got {split_seed}")
    return _divided(name, root, stamp(_files(name, root)), train_rows, test_rows, split_seed)


def _files(name: str, root: Path) -> list[Path]:
    """The files of a task, split by split, German first; a ``DataError`` says which is missing."""
    folder = root / name.removeprefix(PREFIX)
    layouts = [[folder / f"{part}.{language}" for part in layout for language in LANGUAGES] for layout in LAYOUTS]
    found = max(layouts, key=lambda files: sum(path.is_file() for path in files))
    for path in found:
        if not path.is_file():
            needed = " or ".join(f"{', '.join(f'{part}.de' for part in layout)}" for layout in LAYOUTS)
            raise DataError(f"data {name!r} is not there: no file {path}. Needed are {needed} in {folder}, and the same with .en, line by line ({ROOT})")
    return found


@functools.lru_cache(maxsize=2)
def _read(name: str, root: Path, key: str) -> tuple[tuple[Pairs, Pairs, Pairs], tokenizers.Tokenizer]:
    files = _files(name, root)
    parts = [_pairs(name, *pair) for pair in zip(files[::2], files[1::2], strict=True)]
    return (parts[0], parts[1], parts[2]), trained([*parts[0].source, *parts[0].target])


def _pairs(name: str, source: Path, target: Path) -> Pairs:
    found = Pairs(tokens.lines(name, source), tokens.lines(name, target))
    if len(found.source) != len(found.target):
        counts = f"{source} has {len(found.source)} lines and {target} {len(found.target)}"
        raise DataError(f"data {name!r}: {counts}; line by line they must be translations of each other. Restore them")
    return found


@functools.lru_cache(maxsize=2)
def _divided(name: str, root: Path, key: str, train_rows: int | None, test_rows: int | None, split_seed: int) -> Parallel:
    (train, validation, test), tokenizer = _read(name, root, key)
    kept, held, tested = division(name, root, len(train.source), len(test.source), train_rows, test_rows, split_seed, "rows")
    whole = [torch.arange(len(part.source)) for part in (train, validation)]
    # Validation is a file of its own: of the rows for training none is held back.
    chosen = (train, whole[0] if train_rows is None else torch.cat([kept, held])), (validation, whole[1]), (test, tested)
    splits = (_encoded(part, index, tokenizer) for part, index in chosen)
    task = Multiclass(axis=-1, ignore_index=IGNORED)
    return Parallel(name, tokenizer.get_vocab_size(), *splits, task=task, metrics=("accuracy", "bleu"), tokenizer=tokenizer)


def _encoded(pairs: Pairs, index: Tensor, tokenizer: tokenizers.Tokenizer) -> Sentences:
    """Pairs as tokens: what is read, what has been said so far, and what comes next."""
    source, target = ([tokenizer.encode(part[k]).ids[: LONGEST - 1] for k in index.tolist()] for part in pairs)
    inputs = {"source": tokens.padded([[*row, END] for row in source], PAD), "target_in": tokens.padded([[BEGIN, *row] for row in target], PAD)}
    return Sentences(inputs, tokens.padded([[*row, END] for row in target], IGNORED), tuple(pairs.target[k] for k in index.tolist()))
