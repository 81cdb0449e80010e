"""Where notebooks and the code of the chapters are found."""

import re
from pathlib import Path

import pytest

from bisam.notebook import find

ROOT = Path(__file__).resolve().parents[2]


def test_the_checkout_is_that_of_the_package_wherever_the_caller_stands(tmp_path, monkeypatch):
    (tmp_path / "book" / "code").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find.checkout() == ROOT


def test_an_installed_package_takes_the_checkout_around_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "__file__", str(tmp_path / "site" / "bisam" / "notebook" / "find.py"))
    (tmp_path / "mine" / "book" / "code").mkdir(parents=True)
    (tmp_path / "mine" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "mine" / "below")
    assert find.checkout() == tmp_path / "mine"


def test_without_a_checkout_one_sentence_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "__file__", str(tmp_path / "site" / "bisam" / "notebook" / "find.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(find.NotebookError, match=re.escape(f"needs a checkout of bisam, for the folder book/code; none found at {tmp_path / 'site'}")):
        find.checkout()
