"""Byte-pair encoding: a vocabulary that is trained on the texts themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ... import _checks

if TYPE_CHECKING:
    import tokenizers

__all__ = ["BEGIN", "END", "PAD", "SPECIAL", "VOCABULARY", "trained"]

SPECIAL = ("<pad>", "<begin>", "<end>")
PAD, BEGIN, END = range(len(SPECIAL))  # their numbers
VOCABULARY = 8000  # tokens at most; a small text gives fewer
THREADS = "TOKENIZERS_PARALLELISM"


def trained(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """Byte-pair encoding of bytes, trained on texts: no text is unknown to it, and decoding gives back every letter.

    The same texts give the same vocabulary. It has 259 tokens at least, the bytes and the three special ones, and at most ``VOCABULARY``.

    Args:
        texts: sentences of all languages.

    Source:
        Sennrich, Haddow and Birch (2016); on bytes, Radford et al. (2019).

    Example:
        >>> found = trained(["a cat", "a hat"])
        >>> found.decode(found.encode("a bat").ids).strip()
        'a bat'
    """
    library = _checks.needs("tokenizers", extra="language")
    found = library.Tokenizer(library.models.BPE())
    found.pre_tokenizer, found.decoder = library.pre_tokenizers.ByteLevel(add_prefix_space=True), library.decoders.ByteLevel()
    every = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=every, show_progress=False)
    with alone():
        found.train_from_iterator(texts, trainer)
    found.encode_special_tokens = True  # "<end>" in a text is five letters
    return found


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In one thread: the library's own threads would make it write a warning in every process that forks later."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "false"
    try:
        yield
    finally:
        os.environ.pop(THREADS)
        if before is not None:
            os.environ[THREADS] = before
