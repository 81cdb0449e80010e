"""Builds the lecture from `book/slides/deck.md`: a page that needs no network, and a PDF where Chromium is installed.

The deck is Markdown. A line `---` ends a slide, `Note:` begins what only the speaker sees, with the minutes of the slide.
Comments do what Markdown cannot:

    <!-- from: book/sam, notebooks/two_minima -->        the pages that the slide draws on, linked at its foot
    <!-- right -->                                       what follows stands in a second column
    <!-- step -->                                        what follows appears with the next key, up to the next step or the end of the column
    <!-- idea -->                                        the picture of the first page
    <!-- code: book/code/algorithm1.py "sam_step" -->    the lines between the markers of a tested file
    <!-- optional -->                                    the slide is left out as long as its picture or page is missing

Pictures are those of the notebooks, with the alt text that they have there: `![name](../figures/fig-name.svg "1160")` draws one 1160 pixels wide, and
makes its labels large enough for the last row.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import json
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import browsers  # noqa: E402
from slide_pictures import enlarged, figure, idea  # noqa: E402

SOURCE = ROOT / "book" / "slides"
REVEAL = ROOT / "book" / "_static" / "reveal"
OUT = ROOT / "_build" / "slides"
IN_BOOK = ROOT / "_build" / "html" / "slides"
MATHJAX = "tex-svg.js"  # one file, formulas as drawings: nothing is fetched, fonts included


PICTURE = r'!\[[^]]*\]\(\.\./figures/([\w-]+)\.svg "(\d+)"\)'
STEP = "<!-- step -->"


class DeckError(ValueError):
    """The deck asks for something that is not there."""


@dataclass(frozen=True)
class Slide:
    """One slide, as written."""

    body: str
    notes: str

    @property
    def title(self) -> str:
        return re.search(r"^# (.+)$", self.body, re.M)[1]

    @property
    def minutes(self) -> float:
        return float(re.match(r"(\d+(?:\.\d+)?) min\b", self.notes)[1])

    @property
    def pages(self) -> list[str]:
        found = re.search(r"<!-- from: (.+?) -->", self.body)
        return found[1].split(", ") if found else []

    @property
    def pictures(self) -> list[str]:
        return [name for name, _ in self.drawn]

    @property
    def drawn(self) -> list[tuple[str, int]]:
        """Its pictures with the width at which each is drawn."""
        return [(name, int(width)) for name, width in re.findall(PICTURE, self.body)]

    @property
    def missing(self) -> list[str]:
        """Pictures that no notebook has, and pages that the book does not have (yet)."""
        contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
        pages = [page for page in self.pages if "." not in page and not re.search(rf"\b{page}$", contents, re.M)]
        return pages + [name for name in self.pictures if figure(name) is None]

    @property
    def optional(self) -> bool:
        return "<!-- optional -->" in self.body


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    import build_book
    import teaching

    try:
        build_book.prepare()
        chosen = build(OUT, book="../html" if (ROOT / "_build" / "html" / "index.html").exists() else None)
    except (DeckError, teaching.TeachingError) as error:
        print(f"==> failed: {error}", file=sys.stderr)
        return 1
    print(f"==> the slides are {OUT / 'index.html'}")
    return print_pdf(OUT / "index.html", OUT / "bisam.pdf", sheets=len(chosen))


# -- the deck ------------------------------------------------------------------------------------------------------------


def slides() -> list[Slide]:
    """All slides of the deck, those that will be left out included."""
    found = []
    for part in re.split(r"^---$", (SOURCE / "deck.md").read_text(encoding="utf-8"), flags=re.M):
        body, mark, notes = part.partition("\nNote:")
        if not mark:
            raise DeckError(f"a slide has no notes: {part.strip().splitlines()[0]}")
        slide = Slide(body.strip(), " ".join(notes.split()))
        if not re.search(r"^# ", slide.body, re.M) or not re.match(r"\d+(\.\d+)? min\b", slide.notes):
            raise DeckError(f"a slide needs a title and notes that begin with its minutes: {slide.body.splitlines()[0]}")
        found.append(slide)
    return found


def shown() -> list[Slide]:
    """The slides whose pictures exist; says which are left out."""
    chosen = []
    for slide in slides():
        if slide.missing and not slide.optional:
            raise DeckError(f"the slide {slide.title!r} needs {', '.join(slide.missing)}, which the book does not have")
        if slide.missing:
            print(f"==> slide left out: {slide.title!r}, for want of {', '.join(slide.missing)}", flush=True)
        else:
            chosen.append(slide)
    return chosen


def build(folder: Path, book: str | None) -> list[Slide]:
    """Writes the deck and all that it loads into a folder; `book` leads from there to the pages of the book."""
    chosen = shown()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(REVEAL, folder / "reveal")
    (folder / "figures").mkdir()
    for name, width in {picture for slide in chosen for picture in slide.drawn}:
        drawing = enlarged(figure(name).read_text(encoding="utf-8"), width)
        (folder / "figures" / f"{name}-{width}.svg").write_text(drawing, encoding="utf-8")
    shutil.copy(SOURCE / "deck.css", folder)
    for name in ("front.css", "logo.svg"):
        shutil.copy(REVEAL.parent / name, folder)
    shutil.copy(mathjax(), folder)
    alt = alt_texts()
    sections = "\n".join(section(slide, alt, book) for slide in chosen)
    page = (SOURCE / "page.html").read_text(encoding="utf-8").replace("{sections}", sections)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return chosen


def section(slide: Slide, alt: dict[str, str], book: str | None) -> str:
    columns = [stepped(part, alt) for part in slide.body.split("<!-- right -->")]
    if len(columns) == 2:
        title, left = re.match(r"\s*(<h1>.*?</h1>)(.*)", columns[0], re.S).groups()
        body = f'{title}\n<div class="columns"><div>{left}</div><div>{columns[1]}</div></div>'
    else:
        body = columns[0]
    kind = ' class="opening"' if not slide.pages else ""
    return (
        f'<section{kind} data-timing="{round(60 * slide.minutes)}">\n<div class="body">{body}</div>\n{foot(slide, book)}'
        f'<aside class="notes">{markdown(slide.notes, alt)}</aside>\n</section>'
    )


def stepped(text: str, alt: dict[str, str]) -> str:
    """HTML of a column: what follows a step is one fragment, and the items of a list that follows are one each."""
    first, *later = (markdown(filled(part), alt) for part in text.split(STEP))
    return first + "".join(fragments(part) for part in later)


def fragments(text: str) -> str:
    if re.fullmatch(r"\s*<(ul|ol)>.*?</\1>\s*", text, re.S):
        return text.replace("<li>", '<li class="fragment">')
    return f'<div class="fragment">{text}</div>'


def foot(slide: Slide, book: str | None) -> str:
    if not slide.pages:
        return ""
    names = [f'<a href="{book}/{page}.html">{page}</a>' if book and "." not in page else page for page in slide.pages]
    return f'<p class="foot">from {", ".join(names)}</p>\n'


def filled(text: str) -> str:
    """The text with its code and drawings, and without the other comments."""
    text = re.sub(r'<!-- code: (\S+) "(.+?)" -->', lambda found: f"```python\n{code(*found.groups())}\n```", text)
    text = text.replace("<!-- idea -->", idea())
    text = re.sub(r"<!-- (from: .*?|optional) -->\n?", "", text)
    if "<!--" in text:
        raise DeckError(f"not a comment that does something: {text[text.index('<!--'):].splitlines()[0]}")
    return text


def code(file: str, name: str) -> str:
    """The lines between `# [start name]` and `# [end name]`, moved to the left."""
    found = re.search(rf"# \[start {name}\]\n(.*?)\n *# \[end {name}\]", (ROOT / file).read_text(encoding="utf-8"), re.S)
    if not found:
        raise DeckError(f"{file} has no lines marked {name!r}")
    return textwrap.dedent(found[1])


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def alt_texts() -> dict[str, str]:
    """What the notebooks say of their named pictures to those who cannot see them."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in cells(path):
            made = cell["metadata"].get("mystnb", {})
            if "name" in made.get("figure", {}):
                found[made["figure"]["name"]] = made["image"]["alt"]
    return found


def markdown(text: str, alt: dict[str, str]) -> str:
    """HTML of a piece of Markdown with formulas between dollars."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    def coloured(source, language, _):
        return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True, noclasses=True, style="tango")) if language else ""

    def picture(_, tokens, index, *__):
        name, width = Path(tokens[index].attrs["src"]).stem, tokens[index].attrs.get("title", "")
        return f'<span class="picture"><img src="figures/{name}-{width}.svg" style="width: {width}px" alt="{html.escape(alt[name])}"></span>'

    def formula(source, options):
        left, right = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
        return f"{left}{html.escape(source)}{right}"

    reader = MarkdownIt("commonmark", {"highlight": coloured, "html": True}).enable("table")
    reader.use(dollarmath_plugin, renderer=formula)
    reader.add_render_rule("image", picture)
    return re.sub(r'<p>(<span class="picture">.*?</span>)</p>', r"\1", reader.render(text))


def mathjax() -> Path:
    """The one file of MathJax that draws, from the package that the book takes it from."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if found is None:
        raise DeckError("the package sphinx-mathjax-offline is not installed: run `make install` or `make html`")
    return Path(found.origin).parent / "static" / "mathjax" / MATHJAX


# -- on paper ------------------------------------------------------------------------------------------------------------


def print_pdf(page: Path, target: Path, sheets: int) -> int:
    """Prints the deck with a browser, one slide a sheet; without a browser it says so, and that is no failure."""
    browser = browsers.chromium()
    lacks = "no Chromium is installed" if browser is None else ""
    if importlib.util.find_spec("playwright") is None:
        lacks = "playwright is not installed (`make install` does)"
    if lacks:
        print(f"==> no PDF: {lacks}; open the slides with ?print-pdf in any browser and print them")
        return 0
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-component-update"]
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=flags)
        tab = chromium.new_page()
        tab.goto(f"{page.resolve().as_uri()}?print-pdf")
        tab.wait_for_function("window.Reveal && Reveal.isReady()")
        tab.wait_for_function(f"document.querySelectorAll('.pdf-page').length === {sheets}")
        tab.pdf(path=target, prefer_css_page_size=True, print_background=True)
        chromium.close()
    print(f"==> the PDF is {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
