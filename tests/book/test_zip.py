"""The book as one file: unpacked, a browser reads it from the disk, and its search finds pages."""

import hashlib
import zipfile
from pathlib import Path

import headless
import pytest
import scripts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    return scripts.tool("zip_site")


def test_the_same_folder_becomes_the_same_file(tool, tmp_path):
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name in ("index.html", "below/page.html", ".buildinfo"):
        (tmp_path / "in" / name).write_text(name)
    digests = []
    for name in ("a.zip", "b.zip"):
        tool.pack(tmp_path / "in", tmp_path / name, "book")
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["book/below/page.html", "book/index.html"]


@pytest.fixture(scope="module")
def unpacked(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zip")
    tool.pack(ROOT / "_build" / "html", folder / "site.zip", "bisam")
    with zipfile.ZipFile(folder / "site.zip") as pack:
        pack.extractall(folder)
    (folder / "site.zip").unlink()
    return folder / "bisam"


@pytest.fixture(scope="module")
def browser():
    with headless.chromium() as browser:
        yield browser


@pytest.mark.book
def test_it_opens_from_the_disk_with_formulas_and_needs_nothing_else(browser, unpacked):
    tab = headless.watched(browser.new_page(), unpacked.as_uri())
    tab.goto((unpacked / "index.html").as_uri())
    tab.wait_for_selector("article h1")
    tab.goto((unpacked / "book" / "bisam.html").as_uri())
    tab.wait_for_function("document.querySelectorAll('mjx-container').length > 20")
    assert tab.outside == []


@pytest.mark.book
@pytest.mark.parametrize("word", ["surrogate", "margins"])
def test_its_search_finds_pages_from_the_disk(browser, unpacked, word):
    tab = headless.watched(browser.new_page(), unpacked.as_uri())
    tab.goto(f"{(unpacked / 'search.html').as_uri()}?q={word}")
    tab.wait_for_selector("#search-results ul li a")
    first = tab.locator("#search-results ul li a").first
    address = first.get_attribute("href")
    assert not address.startswith(("http", "/"))
    first.click()
    tab.wait_for_selector("article h1")
    assert tab.url.startswith(unpacked.as_uri()) and tab.outside == []
