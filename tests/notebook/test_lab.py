"""`make lab` as a reader meets it: JupyterLab opens a notebook, shows the form, and takes a value."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import headless
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("jupyterlab", reason='JupyterLab is not there, of the extra "lab": `make lab` installs it')


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab on a copy of one notebook."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "lower_bounds.ipynb", tmp_path / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {**os.environ, "BISAM_FORM": "1", "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    words = [sys.executable, "-m", "jupyterlab", "notebooks", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    with subprocess.Popen(words, cwd=tmp_path, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/api"):
                    break
            except OSError:
                assert server.poll() is None, "JupyterLab has ended"
                time.sleep(0.5)
        yield address
        server.terminate()


def run(tab, number):
    """Runs a cell of code; keys that come before Lab listens are lost, so that it is asked until the cell has a number."""
    prompt = f"document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell .jp-InputPrompt')[{number}].innerText"
    for _ in range(60):
        tab.click(f".jp-NotebookPanel .jp-CodeCell >> nth={number}")
        tab.keyboard.press("Control+Enter")
        tab.wait_for_timeout(2000)
        if tab.evaluate(prompt).strip() != "[ ]:":
            return
    raise AssertionError(f"cell {number} does not run")


@pytest.mark.slow
def test_the_form_is_shown_and_checks_what_is_typed(lab):
    with headless.chromium() as browser:
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(headless.PATIENCE)
        tab.goto(f"{lab}/lab/tree/lower_bounds.ipynb")
        tab.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        tab.wait_for_selector('[data-status="idle"]')
        for number in range(2):  # the parameters, and the cell below them
            run(tab, number)
        tab.wait_for_selector(".widget-text input")
        assert tab.locator(".widget-text input").count() == 4 and tab.locator(".widget-dropdown").count() == 1
        for typed, said in (("0.4", "Changed: run this cell again and all below it."), ("-4", "alpha must be in (0, 100], got -4.0; alpha stays 0.4")):
            field = tab.locator(".widget-text input").first
            field.fill(typed)
            field.press("Tab")
            tab.wait_for_function(f"[...document.querySelectorAll('.widget-html-content')].at(-1).innerText === {said!r}")
