"""The form of one record: what is packed into it."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from torch import Tensor

from .experiments import LedgerError

WHICH = ("selected", "last")


def packed(right: Tensor) -> str:
    """Bits in the order of the images, eight a byte with the first as the highest, as base64."""
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode("ascii")


def bits(record: dict, which: str) -> np.ndarray:
    """Which test images are right, in the order of the test split.

    Args:
        record: of schema 3 or later.
        which: ``"selected"``, at the chosen epoch, or ``"last"``, after the last one.

    Returns:
        A boolean array of shape (m,), m the number of test images.

    Raises:
        LedgerError: the record has no such bits, or they are not of that many images.

    Source:
        Ours.

    Example:
        >>> bits({"right": {"images": 3, "selected": "oA==", "last": "4A=="}}, "selected").tolist()
        [True, False, True]
    """
    right = record.get("right", {})
    images, text = right.get("images"), right.get(which)
    if images is None or text is None:
        raise LedgerError(f"right.{which} is not in a record of schema {record.get('schema')}: it does not say which images are right")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise LedgerError(f"right.{which} must be base64: {error}") from None
    if len(raw) != -(-images // 8):
        raise LedgerError(f"right.{which} must hold {-(-images // 8)} bytes for {images} images, got {len(raw)}")
    found = np.unpackbits(np.frombuffer(raw, np.uint8))
    if found[images:].any():
        raise LedgerError(f"right.{which} must end with zeros after the {images} images")
    return found[:images].astype(bool)
