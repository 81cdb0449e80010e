"""Figures on every screen: on a telephone the panels stand below each other, and each figure can be saved as SVG and PDF.

An executed notebook has beside the SVG of a figure its PDF and, where the figure is wide, a narrow rendering. Those of the stored notebooks are files in
`book/renderings`, so that the notebooks stay small. A figure is known by the content of its SVG, which a page of a notebook and a chapter that borrows the
figure have alike.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from docutils import nodes

SVG, PDF, NARROW = "image/svg+xml", "application/pdf", "application/vnd.bisam.narrow-svg"  # as in bisam/notebook/pictures.py
PHONE = "screen and (max-width: 600px)"
READABLE = 8  # pixels of the smallest text
ROOM = 340  # pixels that a figure has on a telephone
SIDES = re.compile(r"\b(Left|Right)\b|\((left|right)\)|\bleft with\b")  # of panels that stand side by side
STACKED = '<p class="bisam-stacked">On a narrow screen the panels stand below each other, those on the left first.</p>\n'


@dataclass(frozen=True)
class Drawn:
    """What a notebook stores of one figure."""

    name: str
    svg: str
    narrow: bytes | None
    pdf: bytes | None

    @property
    def files(self) -> dict[str, bytes]:
        """What stands beside the SVG, by the name of its file."""
        found = {f"{self.name}.narrow.svg": self.narrow, f"{self.name}.pdf": self.pdf}
        return {name: content for name, content in found.items() if content is not None}


def setup(app):
    app.connect("builder-inited", collect)
    app.connect("source-read", without_narrow)
    app.connect("build-finished", write)
    app.add_node(nodes.image, override=True, html=(image, leave_image))
    app.add_node(nodes.figure, override=True, html=(enter_figure, figure))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def collect(app) -> None:
    app.bisam_figures = stored(Path(app.srcdir) / "notebooks")


def without_narrow(app, docname: str, content: list[str]) -> None:
    """The reader of notebooks warns of types that it does not know, so it gets none."""
    if NARROW in content[0] and Path(app.env.doc2path(docname)).suffix == ".ipynb":
        notebook = json.loads(content[0])
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                output.get("data", {}).pop(NARROW, None)
        content[0] = json.dumps(notebook)


def stored(folder: Path) -> dict[str, Drawn]:
    """The figures of all notebooks in a folder, by the digest of their SVG."""
    found, aside = {}, folder.parent / "book" / "renderings"
    for path in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name", f"{path.stem}-{cell.get('id')}")
            outputs = [output["data"] for output in cell.get("outputs", []) if SVG in output.get("data", {})]
            for number, data in enumerate(outputs):
                svg, narrow, pdf = ("".join(data[kind]) if data.get(kind) else "" for kind in (SVG, NARROW, PDF))
                own = f"{name}-{number + 1}" if number else name
                found[digest(svg)] = Drawn(
                    own, svg,
                    gzip.decompress(base64.b64decode(narrow)) if narrow else file(aside / f"{own}.narrow.svg"),
                    base64.b64decode(pdf) if pdf else file(aside / f"{own}.pdf"),
                )  # fmt: skip
    return found


def file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def digest(svg: str) -> str:
    return hashlib.sha256("\n".join(svg.splitlines()).encode()).hexdigest()


def is_stacked(drawn: Drawn) -> bool:
    """Whether the narrow rendering has its panels below each other."""
    (wide, high), (narrow, tall) = map(size, (drawn.svg, drawn.narrow.decode()))
    return tall / narrow > 1.3 * high / wide


def size(svg: str) -> tuple[float, float]:
    """Width and height of a figure, in its own units."""
    width, height = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)', svg).groups()
    return float(width), float(height)


def least(svg: str) -> int:
    """The width in pixels at which the smallest text of a figure can be read."""
    return round(size(svg)[0] * READABLE / min(sizes(svg), default=READABLE))


def sizes(svg: str) -> list[float]:
    """The size of each text; of a formula that of its largest letters."""
    found = []
    for text in re.findall(r"<text\b.*?</text>", svg, re.DOTALL):
        said = re.findall(r"\bfont(?:-size)?: (?:[a-z]+ )*([\d.]+)px", text)
        found += [max(map(float, said))] if said else []
    return found


def write(app, exception) -> None:
    """Puts what the pages lead to beside their pictures."""
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / "_images"
        folder.mkdir(exist_ok=True)
        for drawn in app.bisam_figures.values():
            for name, content in drawn.files.items():
                if not (folder / name).exists() or (folder / name).read_bytes() != content:
                    (folder / name).write_bytes(content)


def image(self, node) -> None:
    """The picture; a narrow one on a telephone, or a box in which a wide one can be moved sideways."""
    path = Path(self.builder.srcdir, node["uri"])
    drawn = self.builder.app.bisam_figures.get(digest(path.read_text(encoding="utf-8"))) if path.suffix == ".svg" and path.is_file() else None
    begun = len(self.body)
    type(self).visit_image(self, node)
    if drawn is None:
        return
    written = "".join(self.body[begun:])
    del self.body[begun:]
    around = node.parent.parent if isinstance(node.parent, nodes.reference) else node.parent  # a picture with a width is a link to itself
    if drawn.narrow is not None:
        around["bisam_stacked"] = is_stacked(drawn) and any(SIDES.search(words.astext()) for words in around.findall(nodes.caption))
        source = f'<source media="{PHONE}" srcset="{self.builder.imgpath}/{drawn.name}.narrow.svg">'
        written = f'<picture class="bisam-figure">{source}{written}</picture>'
    elif least(drawn.svg) > ROOM:
        written = (
            f'<span class="bisam-wide" tabindex="0" role="group" aria-label="A wide figure, which scrolls sideways" '
            f'style="--least: {least(drawn.svg)}px">{written}</span>'
        )
    self.body.append(written)
    if isinstance(around, nodes.figure):
        around["bisam_saved"] = links(drawn, Path(node["uri"]).name, self.builder.imgpath)


def links(drawn: Drawn, svg: str, folder: str) -> str:
    """A line below the caption with a link to each file."""
    files = {"SVG": (f"{folder}/{svg}", f"{drawn.name}.svg")}
    if drawn.pdf is not None:
        files["PDF"] = (f"{folder}/{drawn.name}.pdf", f"{drawn.name}.pdf")
    said = " ".join(
        f'<a href="{escape(place)}" download="{escape(name)}" aria-label="Save this figure as {kind}">{kind}</a>' for kind, (place, name) in files.items()
    )
    return f'<p class="bisam-save">Save: {said}</p>\n'


def leave_image(self, node) -> None:
    type(self).depart_image(self, node)


def enter_figure(self, node) -> None:
    type(self).visit_figure(self, node)


def figure(self, node) -> None:
    type(self).depart_figure(self, node)
    self.body.append(STACKED * node.get("bisam_stacked", False) + node.get("bisam_saved", ""))
