"""Lines of files, padding, and what identifies a tokeniser."""

import json
import re

import pytest
import texts
import torch
from tokenizers import Tokenizer

from bisam.training.data import DataError, tokens


@pytest.mark.parametrize("raw, found", [
    (b"a\nb\n", ["a", "b"]), (b"a\nb", ["a", "b"]), (b"a\r\nb\r\n", ["a", "b"]), (b"\xef\xbb\xbfa\nb\n", ["a", "b"]), (b"a\n\nb\n", ["a", "", "b"]),
    ("a\u2028b\x0bc\x85\nd\n".encode(), ["a\u2028b\x0bc\x85", "d"]),
])  # fmt: skip
def test_lines_end_where_the_file_ends_them(raw, found, tmp_path):
    (tmp_path / "text").write_bytes(raw)
    assert tokens.lines("x", tmp_path / "text") == found


@pytest.mark.parametrize("raw, message", [
    (b"", "is empty"), (b"\n \n", "is empty"), (b"\xef\xbb\xbf", "is empty"),
    ("gut\nsch\u00f6n\n".encode("latin-1"), "is not text in UTF-8: line 2 holds the byte 0xf6. Convert it, such as with iconv"),
    ("gut\n".encode("utf-16"), "is not text in UTF-8: line 1 holds the byte 0xff"),
])  # fmt: skip
def test_a_file_that_is_empty_or_in_another_encoding_is_named(raw, message, tmp_path):
    (tmp_path / "text").write_bytes(raw)
    with pytest.raises(DataError, match=rf"data 'x': .*/text {re.escape(message)}"):
        tokens.lines("x", tmp_path / "text")


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(DataError, match=r"data 'x': .* cannot be read \("):
        tokens.lines("x", tmp_path)


def test_rows_are_filled_up_on_the_right():
    assert tokens.padded([[1], [2, 3, 4], []], -100).tolist() == [[1, -100, -100], [2, 3, 4], [-100] * 3]
    assert tokens.padded([[1]], 0).dtype == torch.int64


def test_a_vocabulary_is_its_tokens_with_their_numbers(tmp_path):
    texts.write_tokeniser(tmp_path / "one")
    texts.write_tokeniser(tmp_path / "same")
    texts.write_tokeniser(tmp_path / "other", texts.WORDS[::-1])
    one, same, other = (tokens.vocabulary_of(tmp_path / name / "tokenizer.json") for name in ("one", "same", "other"))
    assert one == same and one.size == other.size == len(texts.SPECIAL) + len(texts.WORDS) and one.digest != other.digest


def test_padding_is_what_the_files_say_it_is(tmp_path):
    texts.write_tokeniser(tmp_path)
    found = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    for said, number in (("[UNK]", 1), ({"content": "[SEP]"}, 3), (None, 0), ("not there", 0)):
        config.write_text(json.dumps({"pad_token": said}))
        assert tokens.padding_of(found, tmp_path) == number
    config.unlink()
    assert tokens.padding_of(found, tmp_path) == 0
    found.enable_padding(pad_id=2)
    assert tokens.padding_of(found, tmp_path) == 2


def test_a_tokeniser_without_padding_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "SPECIAL", ["[NONE]", "[UNK]", "[CLS]", "[SEP]"])
    texts.write_tokeniser(tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json has no token for padding, and tokenizer_config\.json beside it names none"):
        tokens.padding_of(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tmp_path)
