"""Prints the whole book as a PDF, and a second one without the solutions of the exercises, with a browser.

Sphinx writes the book as one long page. Its places are named by their pages, so that each link leads to one place; a link to what is not in the book keeps its
words alone. Code that the pages fold is left out, for it teaches nothing; it is in the notebooks.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import browsers

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "_build" / "print"
SINGLE = BUILT / "_build" / "singlehtml"
PAGE = "book/index.html"
NAMES = {"bisam.pdf": "", "bisam-handout.pdf": "handout"}
STYLES = ("pygments.css", "proof.css", "exercise.css", "sphinx-design.min.css", "bisam.css", "front.css", "print.css")
MARK = re.compile(r'<span id="document-([^"]+)"></span>')
NAMED = re.compile(r'(<[^>]*?\s(?:id|for|aria-labelledby)=")([^"]+)"')
FOOT = '<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #555"><span class="pageNumber"></span></div>'
NUMBER = """starts => [...document.querySelectorAll(".contents a")].map(chapter => {
  const there = chapter.parentElement.querySelector(".sheet"), said = there ? there.textContent : "";
  const sheet = there || chapter.parentElement.appendChild(Object.assign(document.createElement("span"), {className: "sheet"}));
  sheet.textContent = starts[chapter.getAttribute("href").slice(1)];
  return said;
})"""  # writes the numbers, and returns those that stood there
PATIENCE = 600_000  # milliseconds: ends what hangs


class PrintError(RuntimeError):
    """The book cannot be printed."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, default=ROOT / "_build" / "pdf", help="where both files are written")
    given = arguments.parse_args()
    import build_book

    try:
        browser = ready()
        build_book.prepare()
        print("==> writing the book as one page", flush=True)
        write_single()
        page = SINGLE / "print.html"
        page.write_text(to_print((SINGLE / PAGE).read_text(encoding="utf-8")), encoding="utf-8")
        given.folder.mkdir(parents=True, exist_ok=True)
        for name, kind in NAMES.items():
            print_page(browser, page, given.folder / name, kind)
            sheets = finished(given.folder / name, chapters(page.read_text(encoding="utf-8")))
            print(f"==> printed {given.folder / name}: {sheets} pages", flush=True)
    except PrintError as error:
        print(f"==> failed: {error}", file=sys.stderr)
        return 1
    return 0


def ready() -> str:
    """The browser; fails before anything is built where something is missing."""
    browser = browsers.chromium()
    if browser is None:
        raise PrintError("no Chromium is installed, and a browser prints the book")
    for name in ("playwright", "pikepdf", "pypdf"):
        if importlib.util.find_spec(name) is None:
            raise PrintError(f"{name} is not installed: run `make install`")
    return browser


def write_single() -> None:
    """Has Sphinx write the long page, from nothing: it forgets what another build left."""
    shutil.rmtree(BUILT, ignore_errors=True)
    BUILT.mkdir(parents=True)
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", ".", "-W", "-n", "--keep-going"]
    with (BUILT / "log.txt").open("w", encoding="utf-8") as log:
        words = [*command, "--builder", "singlehtml", "--path-output", str(BUILT)]
        status = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=subprocess.STDOUT).returncode
    if status:
        raise PrintError(f"Sphinx cannot write the book as one page; its log is {BUILT / 'log.txt'}")


# -- the page ------------------------------------------------------------------------------------------------------------


def to_print(text: str) -> str:
    """The long page without the theme around it."""
    body = without_outside(with_own_places(re.search(r'<article class="bd-article">(.*)</article>', text, re.DOTALL)[1]))
    lost = sorted(set(re.findall(r'href="#([^"]+)"', body)) - set(re.findall(r'\sid="([^"]+)"', body)))
    if lost:
        raise PrintError(f"{len(lost)} links of the long page lead nowhere, the first to {lost[0]}")
    styles = "\n".join(f'<link rel="stylesheet" href="_static/{name}">' for name in STYLES)
    math = '<script>window.MathJax = {"options": {"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area"}}</script>\n'
    math += '<script defer src="_static/mathjax/tex-chtml.js"></script>'
    head = f'<meta charset="utf-8"><title>bisam: the book</title>\n{styles}\n{math}'
    return f'<!doctype html>\n<html lang="en" data-theme="light"><head>{head}</head>\n<body><main class="bd-article">\n{front(body)}\n{body}\n</main></body></html>\n'


def with_own_places(body: str) -> str:
    """The body with every place named by its page, and every link to such a name."""
    parts = MARK.split(body)
    pages = [("book/index", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    out = []
    for page, part in pages:
        part = NAMED.sub(lambda found, page=page: f'{found[1]}{place(page, found[2])}"', part)
        part = re.sub(r"url\(#([^)]+)\)", lambda found, page=page: f"url(#{place(page, found[1])})", part)  # within a drawing
        part = re.sub(r'href="#(?!document-)([^"]+)"', lambda found, page=page: f'href="#{place(page, found[1])}"', part)
        part = re.sub(r'href="#document-([^"#]+)#([^"]+)"', lambda found: f'href="#{place(*found.groups())}"', part)
        out.append(f'<span id="document-{page}"></span>{part}')
    return "".join(out)


def place(page: str, name: str) -> str:
    return f"{page}--{name}"


def without_outside(body: str) -> str:
    """The body without links to files, of which a reader on paper has none."""
    body = re.sub(r'<a class="headerlink".*?</a>', "", body, flags=re.DOTALL)
    return re.sub(r'<a (?![^>]*href="(?:#|https?:|mailto:))[^>]*href="[^"]*"[^>]*>(.*?)</a>', r"\1", body, flags=re.DOTALL)


def front(body: str) -> str:
    """The title and the contents, with a link to each chapter and to each page below it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = re.findall(r'<section [^>]*id="([^"]+)">\s*(?:<span id="[^"]+"></span>\s*)*<h([123])>(.*?)</h\2>', body, re.DOTALL)
    pages = {name for name, _ in first_headings(body)}
    rows = [f'<li class="level{level}"><a href="#{name}">{title}</a></li>' for name, level, title in found if name in pages and level != "1"]
    title = f'<p class="title">bisam</p><p>Version {html.escape(version)}</p><p class="of-handout">Handout, without the solutions of the exercises</p>'
    return f'<nav class="contents">{title}<p class="head">Contents</p><ul>{"".join(rows)}</ul></nav>'


def first_headings(body: str) -> list[tuple[str, str]]:
    """The place of the first heading of every page, and the page."""
    parts = re.split(r'<span id="document-([^"]+)"></span>', body)
    starts = ((page, re.search(r'<section [^>]*id="([^"]+)"', part)) for page, part in zip(parts[1::2], parts[2::2], strict=True))
    return [(found[1], page) for page, found in starts if found]


def chapters(page: str) -> list[str]:
    """The titles in the contents, as plain text."""
    rows = re.findall(r'<li class="level\d"><a href="[^"]*">(.*?)</a>', page)
    return [html.unescape(re.sub("<[^>]*>", "", row)) for row in rows]


# -- on paper ------------------------------------------------------------------------------------------------------------


def print_page(browser: str, page: Path, target: Path, kind: str) -> None:
    """Prints a page once its formulas and pictures are there; `kind` is the class that the page gets."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync", "--disable-component-update"]
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=flags, timeout=PATIENCE)
        tab = chromium.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.goto(page.resolve().as_uri())
        tab.evaluate("kind => { document.documentElement.className = kind; document.title += kind && ', ' + kind }", kind)
        tab.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        tab.evaluate("async () => { await MathJax.startup.promise; await document.fonts.ready }")
        tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        wrong = tab.locator("[data-mjx-error], mjx-merror").count()
        if wrong:
            raise PrintError(f"{wrong} formulas of the book cannot be set")
        for _ in range(2):  # the numbers of the contents are known when it has been printed once
            tab.pdf(path=target, prefer_css_page_size=True, print_background=True, outline=True, tagged=True,
                    display_header_footer=True, header_template="<span></span>", footer_template=FOOT)  # fmt: skip
            starts = first_pages(target)
            known = tab.evaluate(NUMBER, starts)
        chromium.close()
    if known != [str(starts.get(name)) for name in known_names(page)]:
        raise PrintError(f"the contents of {target.name} name other pages than those on which the chapters begin")


def first_pages(path: Path) -> dict[str, int]:
    """On which page of a printed file each of its places is."""
    import pypdf

    read = pypdf.PdfReader(path)
    return {name.removeprefix("/"): read.get_destination_page_number(at) + 1 for name, at in read.named_destinations.items()}


def known_names(page: Path) -> list[str]:
    """The places to which the contents lead, in their order."""
    return re.findall(r'<li class="level\d"><a href="#([^"]*)">', page.read_text(encoding="utf-8"))


def finished(path: Path, titles: list[str]) -> int:
    """Packs a printed file, which makes it a third as large, and looks at it: links, outline, numbers. Returns how many pages it has."""
    import pikepdf
    import pypdf

    with pikepdf.open(path, allow_overwriting_input=True) as file:
        file.save(path, object_stream_mode=pikepdf.ObjectStreamMode.generate, deterministic_id=True)
    read = pypdf.PdfReader(path)
    places = set(read.named_destinations)
    links = [link.get_object() for sheet in read.pages for link in sheet.get("/Annots") or []]
    inside = [str(link["/Dest"]) for link in links if "/Dest" in link]
    lost = sorted(set(inside) - places)
    if lost or not inside:
        raise PrintError(f"{path.name} has {len(inside)} links inside, of which {len(lost)} lead nowhere: {', '.join(lost[:3])}")
    files = [link["/A"]["/URI"] for link in links if "/URI" in link.get("/A", {}) and link["/A"]["/URI"].startswith("file:")]
    if files:
        raise PrintError(f"{path.name} has links to files of the machine that printed it: {', '.join(files[:3])}")
    outline = {squeezed(title) for title in flat(read.outline)}
    missing = [title for title in titles if squeezed(title) not in outline]
    if missing:
        raise PrintError(f"{path.name} lacks in its outline: {', '.join(missing[:3])}")
    unknown = [number for number, sheet in enumerate(read.pages, 1) if "??" in sheet.extract_text()]
    if unknown:
        raise PrintError(f"{path.name} has ?? in the place of a number on page {unknown[0]}")
    return len(read.pages)


def flat(outline: list) -> list[str]:
    return [title for item in outline for title in (flat(item) if isinstance(item, list) else [item.title])]


def squeezed(title: str) -> str:
    """A title without spaces: a browser loses those at which a line ends."""
    return re.sub(r"\s", "", title)


if __name__ == "__main__":
    sys.exit(main())
