"""What pages say of themselves: descriptions, authors, licence and address, from one place and in agreement."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document
from scripts import extension

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "_build" / "html"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = PYPROJECT["tool"]["bisam"]["repository"]
front = extension("front")


def page(*texts):
    """A document with a title and paragraphs; a text that begins with a dollar is a formula."""
    section = nodes.section("", nodes.title("", "A title"))
    for text in texts:
        paragraph = nodes.paragraph("", "", nodes.math(text, text) if text.startswith("$") else nodes.Text(text))
        section += paragraph
    document = new_document("page")
    document += section
    return document


def test_the_description_of_a_page_is_its_first_paragraph_without_a_formula():
    first, second = "SAM beats SGD by 29 points where labels are wrong.", "A second paragraph that nobody needs for this."
    assert front.first_words(page("short", "$x$", first, second)) == first
    assert front.first_words(page("short")) == ""


def test_a_long_description_is_cut_at_a_word():
    said = front.first_words(page("word, " * 100))
    assert len(said) <= front.LONGEST and said.endswith("word\N{HORIZONTAL ELLIPSIS}")


def test_without_an_address_nothing_is_said_that_needs_one():
    said = "".join(front.tags("A &amp; B", 'a "quoted" word', "bisam", "book/sam", ""))
    assert '"description" content="a &quot;quoted&quot; word"' in said and 'og:title" content="A &amp; B"' in said
    assert "http" not in said and "og:image" not in said and "twitter" not in said
    assert "href" not in front.foot("") and "MIT License" in front.foot("")


def test_with_an_address_the_image_and_the_page_are_named():
    said = "".join(front.tags("A", "b", "bisam", "book/sam", "https://some.github.io/thing/stable"))
    assert 'og:image" content="https://some.github.io/thing/stable/_static/shared.png"' in said
    assert 'og:url" content="https://some.github.io/thing/stable/book/sam.html"' in said and "summary_large_image" in said
    assert 'href="https://github.com/some/thing/blob/main/LICENSE"' in front.foot("https://github.com/some/thing")


def test_authors_licence_and_address_are_the_same_everywhere():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = [author["name"] for author in PYPROJECT["project"]["authors"]]
    assert [author["name"] for author in cited["authors"]] == authors == [config["author"]]
    assert cited["version"] == PYPROJECT["project"]["version"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(f"{cited['license']} License")
    assert cited.get("repository-code", "") == ADDRESS


# -- the built pages -------------------------------------------------------------------------------------------------------


@pytest.mark.book
@pytest.mark.parametrize("name", ["book/index", "book/sam", "notebooks/report"])
def test_a_page_has_a_description_a_logo_an_icon_and_a_licence(name):
    text = (BUILT / f"{name}.html").read_text(encoding="utf-8")
    said = re.findall(r'<meta name="description" content="([^"]{30,260})"', text)
    assert len(said) == 1 and "\\" not in said[0]
    assert 'og:title"' in text and "MIT License" in text and PYPROJECT["project"]["authors"][0]["name"] in text
    assert re.search(r'rel="icon" href="[^"]*logo\.svg"', text) and re.search(r'<img src="[^"]*logo\.svg" class="logo__image', text)
    assert bool(ADDRESS) == ("og:image" in text)


@pytest.mark.book
def test_no_two_pages_have_the_same_description():
    pages = sorted((BUILT / "notebooks").glob("*.html"))
    said = [re.search(r'<meta name="description" content="([^"]*)"', path.read_text(encoding="utf-8"))[1] for path in pages]
    assert len(said) == len(list((ROOT / "notebooks").glob("*.ipynb"))) == len(set(said))


@pytest.mark.book
def test_the_number_of_a_chapter_is_the_first_number_of_its_figures_and_exercises():
    chapters = [page for part in yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"] if "numbered" in part for page in part["chapters"]]
    counted = 0
    for number, chapter in enumerate(chapters, start=1):
        text = (BUILT / f"{chapter['file']}.html").read_text(encoding="utf-8")
        body = text.partition("<article")[2].partition("</article>")[0]
        title = re.search(r'<h1><span class="section-number">(\d+)\. </span>', body)
        assert title and int(title[1]) == number, chapter["file"]
        own = re.findall(r'class="caption-number">(?:Fig\.|Exercise|Table|Lemma|Theorem|Proposition)\s*(\d+)\.\d+ ?<', body)
        assert {int(found) for found in own} <= {number}, chapter["file"]
        counted += len(own)
    assert counted > 100 and "sections" not in str(chapters)
