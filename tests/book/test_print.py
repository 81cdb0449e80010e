"""The book on paper: links that lead to the right one of many places, an outline, and a handout without solutions."""

import re
import sys
from pathlib import Path

import pytest
import scripts
from headless import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool():
    return scripts.tool("print_book")


LONG = """<article class="bd-article">
<section id="root"><span id="index"></span><h1>The book<a class="headerlink" href="#root">#</a></h1>
<svg><clipPath id="ball"></clipPath><g clip-path="url(#ball)"></g></svg>
<p>See <a class="reference internal" href="#document-book/two#summary">the summary</a>, <a href="_modules/x.html">a file</a>
 and <a class="reference external" href="https://example.org/">the net</a>.</p>
<span id="document-book/one"></span><section id="one"><h2>1. One <em>thing</em></h2><section id="summary"><h3>Summary</h3><p>First words.</p></section>
<p><a href="#summary">above</a></p><div class="admonition solution"><p>The answer is 42.</p></div></section>
<span id="document-book/two"></span><section id="two"><h2>2. Another</h2><section id="summary"><h3>Summary</h3><p>Other words.</p></section></section>
</section></article>"""


def test_each_link_leads_to_the_place_on_its_own_page(tool):
    page = tool.to_print(LONG)
    assert page.count('id="book/one--summary"') == page.count('id="book/two--summary"') == 1
    assert '<a class="reference internal" href="#book/two--summary">the summary</a>' in page and '<a href="#book/one--summary">above</a>' in page
    assert "a file" in page and "_modules" not in page and 'href="https://example.org/"' in page and "headerlink" not in page
    assert '<clipPath id="book/index--ball">' in page and 'clip-path="url(#book/index--ball)"' in page
    assert tool.chapters(page) == ["1. One thing", "2. Another"]


def test_a_link_that_leads_nowhere_is_refused(tool):
    with pytest.raises(tool.PrintError, match="1 links of the long page lead nowhere, the first to book/two--gone"):
        tool.to_print(LONG.replace("two#summary", "two#gone"))


@pytest.fixture
def printed(tool, tmp_path):
    """The small book on paper, whole and as a handout. It has no formulas, so that what sets them is stood in for."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed on this machine, so nothing can be printed")
    style = (ROOT / "book" / "_static" / "print.css").read_text(encoding="utf-8")
    page = re.sub(r"<link [^>]*>|<script.*?</script>", "", tool.to_print(LONG), flags=re.DOTALL)
    page = page.replace("</head>", f"<style>{style}</style><script>window.MathJax = {{startup: {{promise: Promise.resolve(1)}}}}</script></head>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    for name, kind in tool.NAMES.items():
        tool.print_page(CHROMIUM, tmp_path / "page.html", tmp_path / name, kind)
    return tmp_path


@pytest.mark.slow
def test_both_files_have_links_an_outline_and_the_handout_no_solution(tool, printed):
    import pypdf

    titles = tool.chapters((printed / "page.html").read_text(encoding="utf-8"))
    assert {tool.finished(printed / name, titles) for name in tool.NAMES} == {4}
    texts = {name: " ".join(sheet.extract_text() for sheet in pypdf.PdfReader(printed / name).pages) for name in tool.NAMES}
    for name, text in texts.items():
        assert re.search(r"1\. One thing\s+3\s+2\. Another\s+4\b", text), f"{name} has no page numbers in its contents"
        assert ("Handout, without the solutions" in text) == ("handout" in name)
    assert [pypdf.PdfReader(printed / name).metadata.title for name in tool.NAMES] == ["bisam: the book", "bisam: the book, handout"]
    assert "answer is 42" in texts["bisam.pdf"] and "answer is 42" not in texts["bisam-handout.pdf"] and "First words" in texts["bisam-handout.pdf"]
    read = pypdf.PdfReader(printed / "bisam.pdf")
    where = read.named_destinations
    assert read.get_destination_page_number(where["/book/two--summary"]) == 3 and read.get_destination_page_number(where["/book/one--summary"]) == 2
    with pytest.raises(tool.PrintError, match=r"lacks in its outline: 3\. A chapter"):
        tool.finished(printed / "bisam.pdf", [*titles, "3. A chapter that is not there"])


def test_every_style_sheet_of_the_book_is_printed_with_it(tool):
    assert {path.name for path in (ROOT / "book" / "_static").glob("*.css")} <= set(tool.STYLES)


def test_what_is_missing_is_said_before_anything_is_built(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["print_book"])
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    assert tool.main() == 1 and "no Chromium is installed" in capsys.readouterr().err
