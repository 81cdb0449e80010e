"""An executed notebook as one HTML file that reads without a network and without this project.

Sphinx renders it as a page of the book, so that references, numbers, citations, proofs and exercises are those of the book; what the page needs
is then put into the file. References to other pages keep their words and lose their links.
"""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .. import _checks
from .. import _files as files
from .executed import TABLE
from .find import NotebookError, find
from .pictures import NARROW

__all__ = ["check_ready", "write_html"]

INSTEAD = {"hide-cell": "remove-cell", "hide-input": "remove-input", "hide-output": "remove-output"}
LEFT_OUT = ("sphinx_thebe", "sphinx_comments", "sphinx_book_theme", "sphinx_copybutton", "jupyter_book", "sphinx.ext.viewcode",
            "figures", "front", "mended", "one_hour", "role_words", "ways")
SETTINGS = f"""
html_theme, html_theme_options = "basic", {{}}
exclude_patterns += ["book/api/*", "book/slides"]
extensions = [name for name in extensions if name not in {LEFT_OUT} and not name.startswith("sphinx.ext.auto")]
"""
MATHJAX = Path("static", "mathjax", "tex-svg-full.js")  # with its fonts and all its parts in one file
STYLE = """
body { font: 17px/1.6 Georgia, serif; color: #222; background: #fff; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { font-family: system-ui, sans-serif; line-height: 1.25; }
div.highlight, div.cell_output pre { background: #f6f6f6; padding: .1rem .7rem; border: 0; } div.cell div.cell_input { border-left: 3px solid #ccc; }
img { max-width: 100%; height: auto; } pre { overflow-x: auto; font-size: .85rem; } figcaption, .caption { font-size: .9rem; color: #444; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid #ddd; padding: .25rem .6rem; } a.headerlink { display: none; }
"""
MATH = '<script>window.MathJax = {"options": {"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area"}}</script>'


def write_html(run: str | Path, output: str | Path) -> list[str]:
    """Writes an executed notebook of the book as one HTML file; cells and code that the notebook hides are left out.

    Args:
        run: the executed ``.ipynb`` file, whose notebook is one of the book's.
        output: the ``.html`` file.

    Returns:
        What Sphinx warns of on this page.

    Raises:
        ModuleNotFoundError: the packages of the extra ``docs`` are not there.
        NotebookError: the notebook is no page of a book that is here, or Sphinx fails.
        OSError: the disk does not take it.

    Example:
        >>> write_html("nothing.ipynb", "nothing.html")
        Traceback (most recent call last):
        bisam.notebook.find.NotebookError: nothing.ipynb cannot be read: No such file or directory
    """
    run, output = _checks.path("run", run), _checks.path("output", output)
    check_ready()
    notebook = _shown(run)
    name = notebook["metadata"].get("bisam", {}).get("run", {}).get("notebook", run.stem)
    root = find(name).resolve().parents[1]
    if f"notebooks/{name}\n" not in _text(root / "_toc.yml") + "\n":
        raise NotebookError(f"html needs a notebook that is a page of the book, and {name} is none at {root}")
    with tempfile.TemporaryDirectory(prefix="bisam-") as folder:
        log = _build(root, Path(folder), name, notebook)
        page = Path(folder) / "out" / "notebooks" / f"{name}.html"
        if not page.exists():
            raise NotebookError(f"html cannot be made of {run}: " + (log.strip().splitlines() or ["Sphinx says nothing"])[-1])
        files.write_whole(output, _whole(page))
    return [line for line in log.splitlines() if f"notebooks/{name}.ipynb" in line]


def check_ready() -> None:
    """A ``ModuleNotFoundError`` that names the extra ``docs`` where its packages are not there.

    Example:
        >>> check_ready()
    """
    for package in ("jupyter_book", "myst_nb", "sphinx", "sphinx-mathjax-offline"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f'{package} is needed for HTML and is not there; install it with: pip install "bisam[docs]"', name=package)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _shown(run: Path) -> dict:
    """The notebook with what it hides taken out."""
    try:
        notebook = json.loads(run.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            tags = cell["metadata"].get("tags", [])
            cell["metadata"] = {**cell["metadata"], "tags": [INSTEAD.get(tag, tag) for tag in tags]}
            if cell["cell_type"] == "code":  # tables for machines are nothing to read
                cell["outputs"] = [output for output in cell["outputs"] if list(output.get("data", {})) != [TABLE]]
                for output in cell["outputs"]:
                    output.get("data", {}).pop(NARROW, None)
    except OSError as error:
        raise NotebookError(f"{run} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{run} must be an executed notebook, and is none: {type(error).__name__}") from None
    return notebook


def _build(root: Path, folder: Path, name: str, notebook: dict) -> str:
    """Has Sphinx render one page of a book that has this notebook in the place of its own; returns what it says."""
    source = folder / "source"
    shutil.copytree(root / "notebooks", source / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (source / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    for each in ("_config.yml", "_toc.yml"):
        shutil.copy(root / each, source / each)
    (source / "book").symlink_to(root / "book")
    (source / "bisam").symlink_to(root / "bisam")
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "book" / "_ext"), os.environ.get("PYTHONPATH", "")]), "NO_COLOR": "1"}
    make = "from jupyter_book.cli.main import main; main()"
    _said([sys.executable, "-c", make, "config", "sphinx", str(source)], here)
    with open(source / "conf.py", "a", encoding="utf-8") as file:
        file.write(SETTINGS)
    words = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(folder / "doctrees"), str(source), str(folder / "out")]
    return _said([*words, str(source / "notebooks" / f"{name}.ipynb")], here)


def _said(words: list[str], variables: dict[str, str]) -> str:
    ended = subprocess.run(words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        raise NotebookError("html cannot be made: " + (ended.stdout.strip().splitlines() or [f"status {ended.returncode}"])[-1])
    return ended.stdout


def _whole(page: Path) -> str:
    """The page with its styles, pictures and formulas in it."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'<link rel="stylesheet"[^>]*href="([^"?]+)', text)
    styles = "\n".join(re.sub(r"url\([^)]*\)", "none", (page.parent / link).read_text(encoding="utf-8")) for link in links)
    body = text.partition('<div class="body" role="main">')[2].partition('<div class="clearer"></div>')[0]
    title = html.escape(re.sub("<[^>]*>|¶", "", re.search(r"<title>(.*?)</title>", text, re.DOTALL)[1]), quote=False)
    body, sources = _without_links(body)
    body = re.sub(r'(<img[^>]*?src=")([^":]+)"', lambda found: f'{found[1]}{_data(page.parent / found[2])}"', body)
    listed = "".join(f"<li>{source}</li>" for source in sources)
    body += f"<section><h2>References</h2><ul>{listed}</ul></section>" if sources else ""
    math = f"{MATH}\n<script>{_mathjax()}</script>" if 'class="math' in body else ""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.unescape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}\n<style>{styles}\n{STYLE}</style>\n{math}</head>\n<body>\n{body}\n</body></html>\n'


def _without_links(body: str) -> tuple[str, list[str]]:
    """The page without links to others, and the works that it cites."""
    sources: dict[str, None] = {}

    def words(found: re.Match) -> str:
        cited = re.search(r'title="([^"]*)"', found[1])
        if cited and "bibliography.html" in found[1]:
            sources[cited[1]] = None
        return found[2]

    body = re.sub(r'<a ([^>]*href="(?!#|https?:|mailto:)[^"]*"[^>]*)>(.*?)</a>', words, body, flags=re.DOTALL)
    return body, sorted(sources)


def _data(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _mathjax() -> str:
    text = (Path(find_spec("sphinx-mathjax-offline").origin).parent / MATHJAX).read_text(encoding="utf-8")
    return text.replace("</script", r"<\/script")
