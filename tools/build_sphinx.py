"""Builds the book with the current Sphinx and myst-nb, without Jupyter Book: proof that the book does not depend on a wrapper which is only maintained.

The settings are those of ``_config.yml`` and ``_toc.yml``; this writes them as a ``conf.py`` and ends with an error where it does not know a key.
The pages come to ``_build/sphinx/html``. A build is strict like the other one: nitpicky, and a warning is an error.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build" / "sphinx"
EXTENSIONS = ["sphinx_togglebutton", "sphinx_copybutton", "myst_nb", "sphinx_external_toc", "sphinx_multitoc_numbering", "sphinx_design"]
LEFT_OUT = {"role_words"}  # writes what the editions of the notebooks need, which lie beside the other build
PLACES = {  # key of _config.yml to setting of Sphinx
    "title": "html_title",
    "author": "author",
    "copyright": "copyright",
    "logo": "html_logo",
    "only_build_toc_files": "external_toc_exclude_missing",
    "exclude_patterns": "exclude_patterns",
    "bibtex_bibfiles": "bibtex_bibfiles",
    "execute.execute_notebooks": "nb_execution_mode",
    "execute.stderr_output": "nb_output_stderr",
    "parse.myst_enable_extensions": "myst_enable_extensions",
    "html.favicon": "html_favicon",
    "html.baseurl": "html_baseurl",
}


def main() -> int:
    import build_book
    import yaml

    build_book.prepare()
    BUILD.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    folders = sorted({str(ROOT), *(str(ROOT / folder) for folder in config["sphinx"].get("local_extensions", {}).values())})
    lines = ["import sys", f"sys.path[:0] = {folders!r}", *(f"{key} = {value!r}" for key, value in settings(config).items())]
    (BUILD / "conf.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html", "-c", str(BUILD), str(ROOT), str(BUILD / "html")]
    status = subprocess.run(command, cwd=ROOT).returncode
    print("==> failed: Sphinx says above why" if status else f"==> the book is {BUILD / 'html' / 'book' / 'index.html'}")
    return status


def settings(config: dict) -> dict:
    """The settings of a Jupyter Book as those of Sphinx; a ``KeyError`` names what it does not know."""
    sphinx = config["sphinx"]
    known = {PLACES[name]: value for name, value in flat({key: value for key, value in config.items() if key != "sphinx"}).items()}
    local = [name for name in sphinx.get("local_extensions", {}) if name not in LEFT_OUT]
    bibliography = ["sphinxcontrib.bibtex"] if "bibtex_bibfiles" in known else []
    known["extensions"] = [*EXTENSIONS, *local, *sphinx["extra_extensions"], *bibliography]
    known |= {"html_theme": "sphinx_book_theme", "external_toc_path": str(ROOT / "_toc.yml"), "html_sourcelink_suffix": ""}
    known |= {"suppress_warnings": ["myst.domains"], "togglebutton_selector": ".toggle, .admonition.dropdown"}
    known |= sphinx["config"]
    for key in ("html_static_path", "bibtex_bibfiles"):  # conf.py lies elsewhere
        known[key] = [str(ROOT / path) for path in known.get(key, [])]
    known |= {key: str(ROOT / known[key]) for key in ("html_logo", "html_favicon") if key in known}
    if known["nb_execution_mode"] is False:  # what YAML makes of a bare off
        known["nb_execution_mode"] = "off"
    return known


def flat(config: dict, before: str = "") -> dict:
    """The settings of a Jupyter Book under their full names."""
    found = {}
    for key, value in config.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return found


if __name__ == "__main__":
    sys.exit(main())
