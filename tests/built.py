"""The built book, as the tests that need it look at it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
TOC = (ROOT / "_toc.yml").read_text(encoding="utf-8")
PAGES = sorted(re.findall(r"(?:root|file): (\S+)", TOC))
# The parts that are numbered: what a reader goes through, one page after the other.
CHAPTERS = sorted(
    page for part in TOC.split("- caption:")[1:] if "numbered:" in part for page in re.findall(r"file: (\S+)", part)
)  # fmt: skip


def visit(tab, address, name):
    """Opens a page and waits until its formulas stand."""
    tab.goto(f"{address}/{name}.html")
    tab.wait_for_load_state("load")
    tab.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
