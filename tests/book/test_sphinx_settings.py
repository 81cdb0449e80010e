"""The settings that Sphinx gets without Jupyter Book are those of the book."""

from pathlib import Path

import pytest
from built import ROOT
from scripts import tool

build_sphinx = tool("build_sphinx")
yaml = pytest.importorskip("yaml", reason="the tools of the book are not installed")


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def test_they_are_those_that_jupyter_book_would_give(config):
    wrapper = pytest.importorskip("jupyter_book.config", reason="Jupyter Book is not installed")
    theirs, _ = wrapper.get_final_config(user_yaml=ROOT / "_config.yml", sourcedir=ROOT, cli_config={"latex_individualpages": False})
    ours = build_sphinx.settings(config)
    for key in ("html_logo", "html_favicon"):
        assert ours.pop(key) == str(ROOT / theirs[key])
    for key in set(ours) & set(theirs) - {"extensions", "html_static_path", "bibtex_bibfiles", "external_toc_path", "exclude_patterns"}:
        assert ours[key] == theirs[key], key
    wrapped = {"jupyter_book", "sphinx_jupyterbook_latex", "sphinx_thebe", "sphinx_comments", "sphinx.ext.intersphinx", "sphinx_book_theme"}
    assert {*theirs["extensions"]} - {*ours["extensions"]} == wrapped | build_sphinx.LEFT_OUT
    assert set(config["exclude_patterns"]) <= set(theirs["exclude_patterns"])


def test_paths_are_whole_and_exist(config):
    ours = build_sphinx.settings(config)
    for path in (*ours["html_static_path"], *ours["bibtex_bibfiles"], ours["external_toc_path"], ours["html_logo"], ours["html_favicon"]):
        assert Path(path).is_absolute() and Path(path).exists()


def test_a_key_that_is_not_known_is_named(config):
    config["latex"] = {"latex_engine": "xelatex"}
    with pytest.raises(KeyError, match=r"latex\.latex_engine"):
        build_sphinx.settings(config)
