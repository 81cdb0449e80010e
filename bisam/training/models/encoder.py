r"""Encoders of the Hugging Face, read from a folder, with a fresh head that classifies.

.. math:: f_w(x) = A\,h_w(x) + b, \qquad h_w \text{ from a file},\; A, b \text{ from the random state}
"""

from __future__ import annotations

import contextlib
import inspect
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import _checks
from ..data.images import ROOT, DataError, digest_of, place
from ..data.tokens import TokenShape, to_fetch, vocabulary_of

if TYPE_CHECKING:
    import transformers

__all__ = ["Encoder", "encoder", "tiny"]

PREFIX = "encoder:"
NAMES = rf"{PREFIX}\w[\w.-]*"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
HEADS = re.compile(r"pooler\.")  # of the body what some files leave out, and training begins afresh


class Encoder(nn.Module):
    """A network of transformers that classifies texts, as a function from tokens to logits; inputs that it does not know are left out.

    Args:
        net: a ``...ForSequenceClassification``.

    Example:
        >>> from bisam.training.data.tokens import TokenShape, Vocabulary
        >>> net = tiny(TokenShape({"input_ids": (9,)}, Vocabulary(50, "0")), 3)
        >>> net(input_ids=torch.tensor([[2, 7, 3]])).shape
        torch.Size([1, 3])
    """

    def __init__(self, net: transformers.PreTrainedModel):
        super().__init__()
        self.net = _checks.module("net", net)
        self.takes = frozenset(inspect.signature(net.forward).parameters)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits of shape ``(n, classes)`` of ``input_ids``, ``attention_mask`` and ``token_type_ids``, each of shape ``(n, L)``."""
        return self.net(**{name: part for name, part in inputs.items() if name in self.takes}).logits


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without bars, reports and warnings of transformers, which then says again what it said before."""
    logs = _checks.needs("transformers", extra="language").utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def tiny(shape: dict[str, tuple[int, ...]], classes: int) -> Encoder:
    """A BERT of two layers and width 32, without weights from a file, for the vocabulary of the data.

    Args:
        shape: of a sample, a :class:`~bisam.training.data.tokens.TokenShape`, which has the vocabulary.
        classes: number of classes.

    Raises:
        TypeError, ValueError: another shape, or a number out of range.

    Example:
        >>> from bisam.training.data.tokens import Vocabulary
        >>> net = tiny(TokenShape({"input_ids": (9,)}, Vocabulary(50, "0")), 2)
        >>> sum(weight.numel() for weight in net.parameters())
        20226
    """
    length = _length(shape, "encoder-tiny")
    if not isinstance(shape, TokenShape) or shape.vocabulary is None:
        raise ValueError("shape must have the vocabulary of a tokeniser for encoder-tiny, as that of data 'glue:TASK:FOLDER' has; got a plain dictionary")
    config = _checks.needs("transformers", extra="language").BertConfig(
        vocab_size=shape.vocabulary.size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=length, num_labels=_checks.whole("classes", classes),
    )  # fmt: skip
    return Encoder(_fresh(config))


def encoder(name: str, shape: dict[str, tuple[int, ...]], classes: int, root: str | Path | None = None) -> Encoder:
    """The encoder in a folder, in float32, with a head whose numbers come from torch's global random state; nothing is fetched.

    Every number of the body is that of the file. What a file lacks beside the head, the pooling layer of some encoders, begins afresh
    as the head does. Attention is computed by its formula, so that a GPU adds in the same order each time and second derivatives exist.

    Args:
        name: ``"encoder:FOLDER"``; the folder holds ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
        shape: of a sample, such as that of ``glue:TASK:FOLDER``. If it has a vocabulary, the tokeniser of the folder must have the same.
        classes: number of classes.
        root: folder of the data sets, see :func:`bisam.training.data.load`.

    Raises:
        TypeError, ValueError: a shape of something else than tokens, too many of them, another vocabulary.
        DataError: the folder is not there (the message says how to fetch it), or what is in it is no encoder, truncated or incomplete.

    Example:
        >>> try:
        ...     encoder("encoder:none", {"input_ids": (9,)}, 2, "nowhere")
        ... except DataError as error:
        ...     print(str(error)[:35])
        model 'encoder:none' is not there: 
    """
    folder = folder_of(name, root)
    length, classes = _length(shape, name), _checks.whole("classes", classes)
    library = _checks.needs("transformers", extra="language")
    with silent():
        config = _config(name, folder, classes)
        _check_fit(name, folder, config, shape, length)
        net = _fresh(config)
        with torch.random.fork_rng(devices=[]):
            body = _body(name, folder, library)
        fitting = {key: part for key, part in body.items() if key in net.base_model.state_dict()}
        missing = net.base_model.load_state_dict(fitting, strict=False).missing_keys
    _check_whole(name, weights_of(name, folder), missing)
    return Encoder(net)


def folder_of(name: str, root: str | Path | None = None) -> Path:
    """The folder of an encoder; a ``DataError`` that says what must be in it if it is not there."""
    folder = place(root) / name.removeprefix(PREFIX)
    if not (folder / "config.json").is_file():
        needed = f"config.json, tokenizer.json and {' or '.join(WEIGHTS)}"
        raise DataError(f"model {name!r} is not there: no file {folder / 'config.json'}. Needed are {needed} ({ROOT}). {to_fetch(folder)}")
    return folder


def weights_of(name: str, folder: Path) -> Path:
    """The file of the weights; a ``DataError`` if there is none."""
    for file in WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    raise DataError(f"model {name!r}: neither {WEIGHTS[0]} nor {WEIGHTS[1]} is in {folder}. {to_fetch(folder)}")


def digest(name: str, root: str | Path | None = None) -> str:
    """The first 16 digits of a SHA-256 of the file of the weights, read again only where that has changed."""
    return digest_of(weights_of(name, folder_of(name, root)))[:16]


def _length(shape: object, model: str) -> int:
    """The number of tokens of a sample, or an error that says which shapes the network can take."""
    if not isinstance(shape, dict) or "input_ids" not in shape:
        raise ValueError(f"shape must be that of tokens, {{'input_ids': (L,), ...}}, for {model}; got {_checks.shown(shape)}")
    return _checks.each("shape", shape["input_ids"], each_of=_checks.whole, length=1)[0]


def _fresh(config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """A network with all its numbers from torch's global random state."""
    kind = _checks.needs("transformers", extra="language").AutoModelForSequenceClassification
    return kind.from_config(config, attn_implementation="eager", dtype=torch.float32)


def _config(name: str, folder: Path, classes: int) -> transformers.PretrainedConfig:
    library = _checks.needs("transformers", extra="language")
    try:
        config = library.AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=classes)
    except Exception as error:  # no JSON, an unknown kind, or a field of the wrong type
        raise DataError(f"model {name!r}: {folder / 'config.json'} cannot be read ({_first_line(error)}). {to_fetch(folder)}") from None
    kinds = _checks.needs("transformers.models.auto.modeling_auto", extra="language")
    known = kinds.MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys() & kinds.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys()
    if config.model_type not in known or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise DataError(f"model {name!r}: {folder} holds {config.model_type!r}, which is no encoder that transformers can classify with, as BERT is")
    return config


def _check_fit(name: str, folder: Path, config: transformers.PretrainedConfig, shape: dict, length: int) -> None:
    """Where network and data meet: the length of a sample, and the numbers of the tokens."""
    most = getattr(config, "max_position_embeddings", None) or length
    if length > most:
        raise ValueError(f"shape must have at most {most} tokens for {name}, got {length}")
    vocabulary = shape.vocabulary if isinstance(shape, TokenShape) else None
    if vocabulary is None:
        return
    own = folder / "tokenizer.json"
    is_same = vocabulary_of(own) == vocabulary if own.is_file() else vocabulary.size == config.vocab_size
    if not is_same or vocabulary.size > config.vocab_size:
        raise ValueError(
            f"model {name!r} must have the vocabulary that the data were made with, {vocabulary.size} tokens; its own has {config.vocab_size}, or gives "
            "them other numbers. Name the same folder in data 'glue:TASK:FOLDER' and model 'encoder:FOLDER'"
        )


def _body(name: str, folder: Path, library) -> dict[str, Tensor]:
    """The numbers in the file of an encoder without its head."""
    path = weights_of(name, folder)
    try:
        body, found = library.AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # each format has its own words for a broken file
        raise DataError(f"model {name!r}: {path} is truncated or corrupt ({_first_line(error)}). {to_fetch(folder)}") from None
    _check_whole(name, path, [*found["missing_keys"], *map(str, found["mismatched_keys"])])
    return {key: part for key, part in body.state_dict().items() if key not in found["missing_keys"]}


def _check_whole(name: str, path: Path, missing: Iterable[str]) -> None:
    lacks = sorted(key for key in missing if not HEADS.match(key))
    if lacks:
        raise DataError(f"model {name!r}: {path} lacks {len(lacks)} of the weights that config.json asks for, such as {lacks[0]}. {to_fetch(path.parent)}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
