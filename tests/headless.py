"""A reader without a network: pages served from a folder, a browser, and a tab that notes what it was refused."""

import contextlib
import functools
import http.server
import shutil
import threading

import pytest

PATIENCE = 300_000  # milliseconds: ends what hangs; a busy machine is no fault of a page
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextlib.contextmanager
def chromium():
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed on this machine, so pages cannot be looked at")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield browser
        browser.close()


def watched(tab, address):
    """The tab, with requests to other machines refused and noted in ``outside``, and errors on the console in ``errors``."""
    tab.outside, tab.errors = [], []
    tab.set_default_timeout(PATIENCE)

    def gate(route):
        if route.request.url.startswith((address, "data:", "blob:", "about:")):
            return route.continue_()
        tab.outside.append(route.request.url)
        return route.abort()

    tab.route("**/*", gate)
    tab.on("console", lambda message: message.type == "error" and tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    return tab
