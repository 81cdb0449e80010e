"""Text as numbers: lines of files, tokenisers, and samples of tokens that are padded on the right."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ... import _checks
from .images import DataError, stamp
from .task import Data, Split

if TYPE_CHECKING:
    import tokenizers

__all__ = ["TokenShape", "Tokens", "Vocabulary", "lines", "padded"]

BOM = b"\xef\xbb\xbf"
PADS = ("[PAD]", "<pad>")  # what padding is called where no file says it


class Vocabulary(NamedTuple):
    """What two tokenisers share if they give the same numbers to the same tokens.

    Args:
        size: how many tokens there are.
        digest: the first 16 digits of a SHA-256 over the tokens and their numbers.

    Example:
        >>> Vocabulary(30522, "0123456789abcdef").size
        30522
    """

    size: int
    digest: str


class TokenShape(dict):
    """The shape of a sample of tokens, by the names of its inputs, and the vocabulary that its numbers are from.

    Args:
        shape: such as ``{"input_ids": (128,)}``.
        vocabulary: that of the tokeniser.

    Example:
        >>> TokenShape({"input_ids": (9,)}, Vocabulary(50, "0")).vocabulary.size
        50
    """

    def __init__(self, shape: dict[str, tuple[int, ...]], vocabulary: Vocabulary):
        super().__init__(shape)
        self.vocabulary = vocabulary


@dataclass(frozen=True)
class Tokens(Data):
    """A task whose inputs are ``input_ids``, ``attention_mask`` and ``token_type_ids``, each of shape ``(n, L)`` and int64.

    Args:
        name, classes, train, validation, test, mean, std, task, metrics: as of :class:`~bisam.training.data.Data`.
        vocabulary: that of the tokeniser; an encoder of another one is refused.

    Example:
        >>> row = torch.tensor([[2, 7, 3, 0], [2, 3, 0, 0]])
        >>> split = Split({"input_ids": row, "attention_mask": (row > 0).long()}, torch.tensor([0, 1]))
        >>> task = Tokens("two", 2, split, split, split, vocabulary=Vocabulary(8, "0"))
        >>> task.picked(split, torch.tensor([1]))[0]["input_ids"]
        tensor([[2, 3]])
    """

    vocabulary: Vocabulary | None = None

    @property
    def shape(self) -> TokenShape:
        """The names of the inputs, with the length of the longest sample of all splits."""
        longest = max(split.inputs["input_ids"].shape[1] for split in (self.train, self.validation, self.test))
        return TokenShape(dict.fromkeys(self.train.inputs, (longest,)), self.vocabulary)

    def picked(self, split: Split, index: Tensor | slice) -> tuple[dict[str, Tensor], Tensor]:
        """The samples at the given places, without the columns that hold padding in all of them."""
        inputs, targets = super().picked(split, index)
        width = longest(inputs["attention_mask"] != 0)
        return {name: part[:, :width] for name, part in inputs.items()}, targets


def longest(is_there: Tensor) -> int:
    """The number of columns up to the last one in which something is there; shape ``(n, L)``, boolean."""
    return int(is_there.sum(1).max())


def lines(name: str, path: Path) -> list[str]:
    """The lines of a text file in UTF-8, with or without a mark at its beginning; their ends are those of Unix or of Windows.

    Args:
        name: of the data, for the error.
        path: of the file.

    Raises:
        DataError: the file cannot be read, is empty, or is not in UTF-8; the message has the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "train.de").write_bytes(b"Ja.\\nNein.\\r\\n")
        ...     lines("parallel:short", Path(folder) / "train.de")
        ['Ja.', 'Nein.']
    """
    try:
        raw = path.read_bytes().removeprefix(BOM)
        text = raw.decode("utf-8")
    except OSError as error:
        raise DataError(f"data {name!r}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        where = f"line {raw[: error.start].count(10) + 1} holds the byte 0x{raw[error.start]:02x}"
        raise DataError(f"data {name!r}: {path} is not text in UTF-8: {where}. Convert it, such as with iconv -t utf-8") from None
    if not text.strip():
        raise DataError(f"data {name!r}: {path} is empty. Restore it")
    found = text.split("\n")  # and at nothing else: sentences hold other marks that end a line for Python
    return [line.removesuffix("\r") for line in (found if found[-1] else found[:-1])]


def padded(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
    """Rows of numbers as one tensor of shape ``(n, length of the longest)``, int64, filled up on the right.

    Args:
        rows: at least one, and one of them not empty.
        filling: what stands where a row is over.

    Example:
        >>> padded([[5, 6, 7], [8]], 0)
        tensor([[5, 6, 7],
                [8, 0, 0]])
    """
    whole = torch.full((len(rows), max(map(len, rows))), filling, dtype=torch.int64)
    for place, row in zip(whole, rows, strict=True):
        place[: len(row)] = torch.tensor(row, dtype=torch.int64)
    return whole


def to_fetch(folder: Path) -> str:
    """How an encoder comes into a folder."""
    return f"Fetch an encoder with its tokeniser, such as: hf download sentence-transformers/all-MiniLM-L6-v2 --local-dir {folder}"


def tokeniser(path: Path) -> tokenizers.Tokenizer:
    """What ``tokenizer.json`` says, or a ``DataError``."""
    if not path.is_file():
        raise DataError(f"no tokeniser {path}. {to_fetch(path.parent)}")
    library = _checks.needs("tokenizers", extra="language")
    try:
        return library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no class of its own
        raise DataError(f"{path} is no tokeniser, or truncated ({error}). {to_fetch(path.parent)}") from None


def vocabulary_of(path: Path) -> Vocabulary:
    """That of a ``tokenizer.json``, read again only where it has changed."""
    if not path.is_file():
        raise DataError(f"no tokeniser {path}. {to_fetch(path.parent)}")
    return _vocabulary(path, stamp([path]))


@functools.lru_cache(maxsize=8)
def _vocabulary(path: Path, key: str) -> Vocabulary:
    tokens = sorted(tokeniser(path).get_vocab(with_added_tokens=True).items())
    return Vocabulary(len(tokens), hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16])


def padding_of(found: tokenizers.Tokenizer, folder: Path) -> int:
    """The number of the token that fills up, as the files of a tokeniser name it."""
    if found.padding is not None:
        return found.padding["pad_id"]
    named = _pad_token(folder / "tokenizer_config.json")
    for token in (*named, *PADS):
        if (number := found.token_to_id(token)) is not None:
            return number
    raise DataError(f"{folder / 'tokenizer.json'} has no token for padding, and tokenizer_config.json beside it names none as pad_token")


def _pad_token(path: Path) -> tuple[str, ...]:
    try:
        token = json.loads(path.read_text(encoding="utf-8")).get("pad_token")
    except (OSError, ValueError, AttributeError):
        return ()
    token = token.get("content") if isinstance(token, dict) else token
    return (token,) if isinstance(token, str) else ()
