"""What the theme and the extensions leave to be mended in the finished pages: weight, names for screen readers, lines of code, the titles of solutions.

Nothing of it can be set. Each function below takes the text of a page and returns it mended, and leaves a mended page as it is, so that pages which
a second build does not write again stay whole.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.errors import ExtensionError
from typeset import set_in_type

ROOT = Path(__file__).resolve().parents[2]
ICON = re.compile(r'<(i|span)((?: [\w-]+="[^"]*")*? class="([^"]*\bfa-[^"]*)"[^>]*)></\1>')
ICON_NAME = re.compile(r"\bfa-(?!solid\b|regular\b|brands\b|lg\b|fw\b|spin\b)([\w-]+)")
ICON_SCRIPT = re.compile(r'\s*<!-- So that users can add custom icons -->\s*<script src="[^"]*fontawesome\.js[^"]*"></script>')
MATHJAX = re.compile(r'\s*<script>window\.MathJax = .*?</script>|\s*<script [^>]*src="[^"]*mathjax/[^"]*"></script>')
CODE = re.compile(r'(<div class="highlight"><pre>(?:<span></span>)?)(.*?)(</pre>)', re.DOTALL)
INDENT = re.compile(r'(<span class="w">)?( +)(?(1)</span>)(?=[^\s])')
SUBPAGES = re.compile(r'(<a class="[^"]*reference internal" href="[^"]*">([^<]*)</a><details(?: open="open")?>)<summary>')
SOLUTION = re.compile(r'(<p class="admonition-title">Solution to)<a [^>]*>(.*?)</a>', re.DOTALL)
SEARCH = re.compile(r'(<button class="btn search-button-field[^>]*?) aria-label="[^"]*"')


def setup(app):
    app.connect("build-finished", mend, priority=900)  # when all others have written
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mend(app, failed):
    if failed or app.builder.format != "html":
        return
    out = Path(app.outdir)
    drawn = out / "_static" / "scripts" / "fontawesome.js"
    icons = Icons(drawn.read_text(encoding="utf-8")) if drawn.exists() else None
    for page in sorted(out.rglob("*.html")):
        if page.relative_to(out).parts[0] in ("_static", "slides"):
            continue
        text = page.read_text(encoding="utf-8")
        new = mended(text, icons)
        if new != text:
            page.write_text(new, encoding="utf-8")
    if icons:
        for path in {*drawn.parent.glob("fontawesome.js*"), *(out / "_static").rglob("*.js.map")}:
            path.unlink()


def mended(text: str, icons: Icons | None = None) -> str:
    """A page with all that is wrong in it put right."""
    for step in (without_idle_mathematics, without_this_folder, named, with_lines, solutions_that_open, set_in_type):
        text = step(text)
    return icons.put_into(text) if icons else text


class Icons:
    """The few icons that pages show, as pictures in the page; the script that holds all of them, and draws them late, weighs 1.5 MB."""

    def __init__(self, script: str):
        self.script = script

    def put_into(self, text: str) -> str:
        return ICON_SCRIPT.sub("", ICON.sub(self.picture, text))

    def picture(self, found: re.Match) -> str:
        attributes, classes = found[2], found[3]
        width, height, path = self.drawing(ICON_NAME.search(classes)[1], solid=not re.search(r"\b(far|fab|fa-regular|fa-brands)\b", classes))
        attributes = re.sub(r' class="[^"]*"', f' class="svg-inline--fa {" ".join(classes.split())}"', attributes)
        attributes = re.sub(r' title="[^"]*"', "", attributes)  # the button around it has one
        return f'<svg{attributes} aria-hidden="true" focusable="false" viewBox="0 0 {width} {height}"><path fill="currentColor" d="{path}"></path></svg>'

    def drawing(self, name: str, solid: bool) -> tuple[str, str, str]:
        """Width, height and path of an icon; the solid ones come last in the script."""
        found = re.findall(rf'[{{,]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+",\[?"([^"]+)"', self.script)
        if not found:
            raise ExtensionError(f"the theme has no icon fa-{name}")
        return found[-1 if solid else 0]


def without_idle_mathematics(text: str) -> str:
    """Without MathJax where a page has no formula: Sphinx gives it to a page whose subpages have one."""
    return text if re.search(r'class="[^"]*\b(math|tex2jax_process)\b', text) else MATHJAX.sub("", text)


def without_this_folder(text: str) -> str:
    """With paths from the root of the project, where a signature shows a default as it is on the machine that built the page."""
    return text.replace(f"PosixPath('{ROOT}/", "Path('")


def named(text: str) -> str:
    """With one name for everything that can be pressed, and roles that belong together in the bibliography."""
    text = SUBPAGES.sub(r'\1<summary aria-label="Pages below: \2">', text)
    text = SEARCH.sub(r"\1", text)  # its text says "Search Ctrl+K"
    text = text.replace('<summary aria-label="Toggle hidden content">', "<summary>")  # its text says what it unfolds
    return text.replace('role="doc-biblioentry"', 'role="listitem"')


def with_lines(text: str) -> str:
    """With an element around each line of code, so that the rest of a line which must wrap can be indented."""

    def lined(found: re.Match) -> str:
        if '<span class="line">' in found[2] or "<div" in found[2] or "linenos" in found[2]:
            return found[0]
        lines = found[2].splitlines(keepends=True)
        return found[1] + "".join(f'<span class="line"{indented(line)}</span>' for line in lines) + found[3]

    return CODE.sub(lined, text)


def indented(line: str) -> str:
    """The end of a tag and a line of code, whose indent is an element: no line may end between it and the first word."""
    found = INDENT.match(line)
    return f' style="--indent: {len(found[2])}"><span class="indent">{found[0]}</span>{line[found.end() :]}' if found else f">{line}"


def solutions_that_open(text: str) -> str:
    """With the exercise in the title of its solution as words: a link would jump where the title should unfold."""
    return SOLUTION.sub(r"\1\2", text)
