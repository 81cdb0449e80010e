"""Ways from a page to what can be held or run: both editions of its notebook, its source, Colab and Binder, and the other version of the book.

Where the project has a public address (``[tool.bisam] repository`` in pyproject.toml) a notebook's page gets a button with Colab, Binder and the source.
``BISAM_PUBLISHED``, which only the publication sets, names the version that is built: its pages then begin with a line that leads to the other one.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
EDITIONS = {"student": "Notebook without solutions", "solutions": "Notebook with solutions"}
BRANCH = "editions"   # where the publication puts the editions, for Colab opens notebooks from a repository only
VERSIONS = ("latest", "stable")


def setup(app):
    app.connect("html-page-context", add, priority=502)  # the theme makes its own buttons at 501
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add(app, pagename, templatename, context, doctree):
    buttons = context.get("header_buttons")
    if buttons is None or doctree is None:
        return
    published = os.environ.get("BISAM_PUBLISHED", "")
    if published:
        context["theme_announcement"] = version_line(published, context["pathto"]("", 1))
    if Path(app.env.doc2path(pagename)).suffix != ".ipynb":
        return
    name = pagename.rpartition("/")[2]
    for group in buttons:
        if group.get("label") == "download-buttons":
            kept = [button for button in group["buttons"] if button["label"] == "download-pdf-button"]
            group["buttons"] = [*downloads(name, context["pathto"]("editions", 1)), *kept]
    address, version = setting()
    if address:
        buttons.insert(0, launch(name, address, version, published or "stable"))


def setting() -> tuple[str, str]:
    """The public address of the project, empty if it has none, and the version."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return content["tool"]["bisam"]["repository"], content["project"]["version"]


def downloads(name: str, folder: str) -> list[dict]:
    """A button for each edition of a notebook."""
    return [
        {"type": "link", "url": f"{folder}/{edition}/{name}.ipynb", "text": words, "tooltip": f"Download the {words[0].lower()}{words[1:]}",
         "icon": "fas fa-file-arrow-down", "label": f"download-{edition}-button"}
        for edition, words in EDITIONS.items()
    ]  # fmt: skip


def launch(name: str, address: str, version: str, published: str) -> dict:
    """The group of buttons that open a notebook elsewhere: without solutions on Colab and Binder, as it is kept in the repository.

    Raises ``ValueError`` for an address that is not one of GitHub, from where Colab and Binder take notebooks.
    """
    project = repository(address)
    tag = "main" if published == "latest" else f"v{version}"
    built = quote(f"lab/tree/_build/html/editions/student/{name}.ipynb", safe="")
    ways = (
        ("Colab", f"https://colab.research.google.com/github/{project}/blob/{BRANCH}/{published}/student/{name}.ipynb", "fas fa-play"),
        ("Binder", f"https://mybinder.org/v2/gh/{project}/{tag}?urlpath={built}", "fas fa-rocket"),
        ("Source", f"https://github.com/{project}/blob/{tag}/notebooks/{name}.ipynb", "fab fa-github"),
    )
    buttons = [
        {"type": "link", "url": url, "text": text, "icon": icon, "tooltip": f"Open this notebook: {text}", "label": f"launch-{text.lower()}-button"}
        for text, url, icon in ways
    ]
    return {"type": "group", "tooltip": "Run this page elsewhere, or see its source", "icon": "fas fa-rocket", "label": "launch-buttons", "buttons": buttons}


def repository(address: str) -> str:
    """Owner and name of a repository on GitHub."""
    parts = urlsplit(address)
    project = parts.path.strip("/").removesuffix(".git")
    if parts.netloc != "github.com" or project.count("/") != 1:
        raise ValueError(f"[tool.bisam] repository must be https://github.com/OWNER/NAME for the buttons of Colab and Binder, got {address!r}")
    return project


def site() -> str:
    """The public address of the book in the version that is built, empty if the project has none."""
    address = setting()[0]
    if not address:
        return ""
    owner, _, name = repository(address).partition("/")
    return f"https://{owner.lower()}.github.io/{name}/{os.environ.get('BISAM_PUBLISHED') or 'stable'}"


def version_line(published: str, root: str) -> str:
    """Says which version a page belongs to, with a link to the other one."""
    if published not in VERSIONS:
        raise ValueError(f"BISAM_PUBLISHED must be one of {', '.join(VERSIONS)}, got {published!r}")
    other = VERSIONS[published == "latest"]
    return f'This is the <b>{published}</b> version of the book. <a href="{root}../{other}/index.html">Read the {other} version</a>.'
