"""A rerun as one file that a browser reads without a network: captions, numbers, citations and formulas, and nothing that is hidden."""

import json
import re

import headless
import pytest

from bisam.notebook import html
from bisam.notebook.executed import TABLE
from bisam.notebook.find import NotebookError, find


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The notebook of the bounds as a rerun that has another number in its output and in a caption."""
    folder = tmp_path_factory.mktemp("html")
    text = find("lower_bounds").read_text(encoding="utf-8")
    notebook = json.loads(text.replace("The 0-1 step (black)", "MY OWN CAPTION (black)"))
    table = {"output_type": "display_data", "metadata": {}, "data": {TABLE: {"name": "claims", "rows": [{"claim": "a claim for machines"}]}}}
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["outputs"])["outputs"].append(table)
    notebook["metadata"]["bisam"] = {"run": {"notebook": "lower_bounds"}}
    (folder / "lower_bounds-alpha=0.2.ipynb").write_text(json.dumps(notebook))
    assert html.write_html(folder / "lower_bounds-alpha=0.2.ipynb", folder / "out.html") == []
    return folder / "out.html"


def shown(page):
    """The text without styles, scripts and marks."""
    body = page.read_text(encoding="utf-8").partition("</head>\n<body>\n")[2]
    return re.sub("<[^>]*>", "", body)


@pytest.mark.slow
def test_roles_and_directives_are_rendered(page):
    text = shown(page)
    assert not re.search(r"\{[\w:]+\}`|```|:label:|:class:", text)
    assert re.search(r"Fig\. \d+\.\d+ is the counterpart of figure 1 of Xie et al\. \[2024\]", text) and "Lemma 5.1" in text
    assert re.search(r"Fig\. \d+\.\d+ MY OWN CAPTION \(black\)", text) and "BiSAM: a loss for each player" in text
    assert re.search(r"Exercise \d+", text) and re.search(r"Solution to", text) and "References" in text and "Improving SAM requires" in text


@pytest.mark.slow
def test_what_is_hidden_is_left_out_and_the_rest_is_there(page):
    text, words = page.read_text(encoding="utf-8").partition("</head>\n<body>\n")[2], shown(page)
    assert "rises above the Heaviside function" not in text and "axvspan" not in text and "The pull of a sample" in words and "with one rival by its margin F, in units" in words
    assert "a claim for machines" not in text
    assert text.count("<img") == text.count('src="data:image/') == 8  # six figures, one of them above as well, and a still


@pytest.mark.slow
def test_the_file_needs_no_other(page):
    found = page.read_text(encoding="utf-8")
    head, body = found.partition("<script>")[0], found.partition("</head>\n<body>\n")[2]
    assert not re.search(r'(?:href|src)="(?!#|https?:|mailto:|data:)', head + body) and "<link" not in head and "url(" not in head


@pytest.mark.slow
def test_a_browser_shows_its_formulas_without_a_network(page):
    with headless.chromium() as browser:
        tab = headless.watched(browser.new_page(), "file://")
        tab.goto(page.as_uri())
        tab.wait_for_function("document.querySelectorAll('mjx-container svg').length > 40")
        assert tab.errors == [] and tab.outside == []
        assert tab.evaluate("[...document.querySelectorAll('img')].every(one => one.naturalWidth > 0 && one.alt.length > 40)")


@pytest.mark.parametrize("content, message", [
    ("{", "x.ipynb must be an executed notebook, and is none"), (None, "x.ipynb cannot be read"),
    (json.dumps({"cells": [], "metadata": {"bisam": {"run": {"notebook": "nowhere"}}}}), "there is no notebook nowhere"),
])
def test_what_is_no_page_of_the_book_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(NotebookError, match=message.replace(".", r"\.")):
        html.write_html(tmp_path / "x.ipynb", tmp_path / "x.html")


def test_a_notebook_that_is_not_in_the_contents_is_refused(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    own = tmp_path / "notebooks" / "own.ipynb"
    own.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotebookError, match=r"html needs a notebook that is a page of the book, and own is none"):
        html.write_html(own, tmp_path / "x.html")


def test_the_extra_is_named_before_anything_runs(monkeypatch):
    from bisam.notebook.run import run

    monkeypatch.setattr(html, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "bisam\[docs\]"'):
        run("lower_bounds", {"alpha": "-1"}, html=True)
