"""The browser that prints, draws and tests the pages: a Chromium of the system."""

from __future__ import annotations

import shutil

# The first has no windows and no menus, which take others half of the time of a page.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where the first of them is; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
