"""A reader without a network: pages served from a folder, a browser, and a tab that notes what it was refused."""

import contextlib
import functools
import http.server
import threading

import pytest
from scripts import tool

PATIENCE = 300_000  # milliseconds: ends what hangs; a busy machine is no fault of a page
CHROMIUM = tool("browsers").chromium()
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open

    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=3600")  # a context reads each script once
        super().end_headers()

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a tab that is closed reads no further
            super().handle()


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
    """The tab, with requests to other machines, none of which the browser finds, in ``outside``, and errors on the console in ``errors``."""
    tab.outside, tab.errors = [], []
    tab.set_default_timeout(PATIENCE)
    at_home = (address, "data:", "blob:", "about:")
    tab.on("request", lambda request: request.url.startswith(at_home) or tab.outside.append(request.url))
    tab.on("console", lambda message: message.type == "error" and tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    return tab


def without_formulas(tab):
    """The tab, in which formulas stay as they are written: to set them takes most of a visit."""
    tab.route("**/tex-chtml.js*", lambda route: route.fulfill(body="", content_type="text/javascript"))
    return tab
