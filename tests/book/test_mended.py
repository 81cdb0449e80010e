"""What is mended in finished pages, on small pieces of them."""

import sys

import pytest
from built import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
mended = pytest.importorskip("mended", reason="the tools of the book are not installed")

SCRIPT = 'x={"file":[1,2,[],"f15b","M-thin"],sun:[5,6,[9728],"f185","M-sun"]};y={file:[3,4,[128196],"f15b",["M-thick"]]}'


def test_an_icon_becomes_its_picture_and_the_script_goes():
    page = (
        '<!-- So that users can add custom icons -->\n<script src="../_static/scripts/fontawesome.js?digest=1"></script>'
        '<i class="theme-switch fa-solid  fa-sun fa-lg" data-mode="light" title="Light"></i><i class="far fa-file"></i><span class="fas fa-file"></span>'
    )
    new = mended.mended(page, mended.Icons(SCRIPT))
    assert "fontawesome" not in new and "<i" not in new and "title" not in new
    assert '<svg class="svg-inline--fa theme-switch fa-solid fa-sun fa-lg" data-mode="light" aria-hidden="true"' in new
    assert [part.split('"')[0] for part in new.split(' d="')[1:]] == ["M-sun", "M-thin", "M-thick"]


def test_an_icon_that_the_theme_lacks_is_told():
    with pytest.raises(mended.ExtensionError, match="fa-moon"):
        mended.mended('<i class="fa-solid fa-moon"></i>', mended.Icons(SCRIPT))


def test_mathjax_stays_only_where_there_is_a_formula():
    scripts = '<script>window.MathJax = {"a": 1}</script>\n<script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>'
    formula = '<span class="math notranslate">x</span>'
    assert mended.mended(scripts) == ""
    assert mended.mended(scripts + formula) == scripts + formula


def test_what_is_pressed_has_one_name():
    page = '<a class="reference internal" href="#">2. Climb</a><details open="open"><summary><span></span></summary></details>'
    assert '<summary aria-label="Pages below: 2. Climb">' in mended.mended(page)
    assert mended.mended('<summary aria-label="Toggle hidden content">') == "<summary>"
    button = '<button class="btn search-button-field x" title="Search" aria-label="Search" data-bs-toggle="tooltip">'
    assert mended.mended(button) == button.replace(' aria-label="Search"', "")
    assert mended.mended('<div class="citation" role="doc-biblioentry">') == '<div class="citation" role="listitem">'


def test_a_line_of_code_has_an_element_and_its_text_stays():
    page = '<div class="highlight"><pre><span></span><span class="k">a</span>\n\n  b\n</pre></div>'
    new = mended.mended(page)
    assert new.count('<span class="line"') == 3
    bare = new.replace(' style="--indent: 2"', "").replace('<span class="indent">  </span>', "  ")
    assert bare.replace('<span class="line">', "").replace("\n</span>", "\n") == page


def test_the_indent_of_a_line_of_code_is_an_element_and_its_length_is_said():
    assert mended.indented("a  b\n") == ">a  b\n" and mended.indented("\n") == ">\n"
    assert mended.indented("    b\n") == ' style="--indent: 4"><span class="indent">    </span>b\n'
    typed = '<span class="w">  </span>'
    assert mended.indented(f"{typed}b\n") == f' style="--indent: 2"><span class="indent">{typed}</span>b\n'


def test_the_title_of_a_solution_has_no_link():
    title = '<p class="admonition-title">Solution to<a class="reference internal" href="#ex"> Exercise 2.1 (<em>Balls</em>)</a></p>'
    assert mended.mended(title) == '<p class="admonition-title">Solution to Exercise 2.1 (<em>Balls</em>)</p>'


def test_a_page_that_is_mended_stays_as_it_is():
    page = (
        '<a class="reference internal" href="#">2. Climb</a><details><summary><span></span></summary></details><i class="fas fa-file"></i>'
        '<div class="highlight"><pre><span></span>a\nb\n</pre></div><p class="admonition-title">Solution to<a href="#"> 1</a></p>'
    )
    once = mended.mended(page, mended.Icons(SCRIPT))
    assert once != page and mended.mended(once, mended.Icons(SCRIPT)) == once


def test_a_default_is_shown_from_the_root_of_the_project():
    assert mended.without_this_folder(f"folder=PosixPath('{ROOT}/results')") == "folder=Path('results')"
    assert mended.without_this_folder("PosixPath('/elsewhere')") == "PosixPath('/elsewhere')"
