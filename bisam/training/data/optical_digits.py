"""The handwritten digits that scikit-learn ships."""

from __future__ import annotations

import functools

import torch

from ... import _checks
from .task import Data, Split

__all__ = ["digits"]


@functools.cache
def digits() -> Data:
    """Scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels in ten classes, shipped with the package.

    The split is the same in every run: 1,000 images to train on, 297 to choose the epoch by, 500 to report on, each with the classes in the
    proportions of the whole. Inputs are float32 of shape ``(n, 1, 8, 8)``, of mean 0 and standard deviation 1 over the training images.

    Source:
        Alpaydin and Kaynak (1998), the test part of the UCI optical digits, as shipped by scikit-learn.

    Example:
        >>> task = digits()
        >>> len(task.train), len(task.validation), len(task.test), task.shape
        (1000, 297, 500, (1, 8, 8))
    """
    train_test_split = _checks.needs("sklearn.model_selection", extra="train").train_test_split
    pixels, classes = _checks.needs("sklearn.datasets", extra="train").load_digits(return_X_y=True)
    rest, test_x, rest_y, test_y = train_test_split(pixels, classes, test_size=500, random_state=0, stratify=classes)
    train_x, valid_x, train_y, valid_y = train_test_split(rest, rest_y, train_size=1000, random_state=0, stratify=rest_y)
    mean, std = train_x.mean(), train_x.std()

    def split(x, y):
        inputs = torch.tensor((x - mean) / std, dtype=torch.float32).reshape(-1, 1, 8, 8)
        return Split(inputs, torch.tensor(y, dtype=torch.int64))

    return Data("digits", 10, split(train_x, train_y), split(valid_x, valid_y), split(test_x, test_y))
