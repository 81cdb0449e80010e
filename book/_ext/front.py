"""What every page says of itself to search engines, to those who share it, and at its foot.

Description, authors, licence and address come from ``pyproject.toml``. Where the project has no public address (``[tool.bisam] repository``), nothing
is written that would need one: no address of the page, no image of a shared link, no link at the foot.
"""

from __future__ import annotations

import html
import tomllib
from pathlib import Path

import ways
from docutils import nodes

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 200  # characters of a description; search engines show fewer
SHORTEST = 40
IMAGE = "_static/shared.png"


def setup(app):
    app.connect("config-inited", identity)
    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def identity(app, config):
    """The words beside the logo, and the licence at the foot of every page."""
    config.html_theme_options["logo"] = {"text": config.html_title, "alt_text": "A ball with two arrows"}
    config.html_theme_options["extra_footer"] = foot(ways.setting()[0])
    app.add_css_file("front.css")


def foot(address: str) -> str:
    """The licence, with links where there is an address."""
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()[0]
    if not address:
        return f"<p>{licence}</p>"
    return f'<p><a href="{address}/blob/main/LICENSE">{licence}</a>, <a href="{address}">source code</a></p>'


def add(app, pagename, templatename, context, doctree):
    if doctree is None:
        return
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["description"]
    description = whole if pagename == app.config.root_doc else first_words(doctree) or whole
    context["metatags"] += "".join(tags(context["title"], description, app.config.html_title, pagename, ways.site()))


def tags(title: str, description: str, project: str, page: str, site: str) -> list[str]:
    """The elements of a page's head; those that need an address only if the site has one."""
    plain = " ".join(nodes.unescape(html.unescape(title)).split())
    found = [
        f'<meta name="description" content="{html.escape(description)}">',
        f'<meta property="og:title" content="{html.escape(plain)}">',
        f'<meta property="og:description" content="{html.escape(description)}">',
        '<meta property="og:type" content="article">',
        f'<meta property="og:site_name" content="{html.escape(project)}">',
    ]
    if site:
        found += [
            f'<meta property="og:url" content="{site}/{page}.html">',
            f'<meta property="og:image" content="{site}/{IMAGE}">',
            '<meta property="og:image:width" content="1200">',
            '<meta property="og:image:height" content="630">',
            '<meta property="og:image:alt" content="A ball with two arrows from its centre, one to the highest loss, one to the most mistakes">',
            '<meta name="twitter:card" content="summary_large_image">',
        ]
    return [f"{element}\n" for element in found]


def first_words(doctree) -> str:
    """The first paragraph of a page that stands in its text and has no formula, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if not isinstance(paragraph.parent, nodes.section) or len(text) < SHORTEST or next(paragraph.findall(nodes.math), None):
            continue
        return text if len(text) <= LONGEST else text[: LONGEST - 1].rpartition(" ")[0].rstrip(",;:") + "\N{HORIZONTAL ELLIPSIS}"
    return ""
