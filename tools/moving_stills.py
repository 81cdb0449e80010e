"""Draws the still pictures of the things to move, as they stand at first or after a hundred steps, into `book/_static/moving/stills`.

Needs a Chromium and playwright.
"""

from __future__ import annotations

import io
from pathlib import Path

import browsers
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"
STILLS = STATIC / "moving" / "stills"
NAMES = ("lower-bounds", "spread-torn", "ball", "two-minima")
FIRST = {"two-minima": ["100 steps"]}  # a start alone shows nothing
COLOURS = 48  # lines and a few grounds: more colours only make the file larger


def page(name: str) -> str:
    """A page with nothing but the drawing of one thing."""
    scripts = "".join(f"<script src='{STATIC.as_uri()}/{path}' defer></script>" for path in (
        "vendor/d3/d3.js", "moving/maths.js", "moving/parts.js", f"moving/{name}.js"))  # fmt: skip
    return (
        f"<!doctype html><meta charset='utf-8'><link rel='stylesheet' href='{STATIC.as_uri()}/moving/moving.css'>{scripts}"
        "<style>.moving-controls, .moving-table, .moving-said { display: none } .moving-live { border: 0; padding: 4px; margin: 0 }</style>"
        f"<body style='width: 640px; margin: 0'><div class='moving' data-moving='{name}'></div>"
    )


def draw(folder: Path) -> None:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--allow-file-access-from-files"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browsers.chromium(), args=flags)
        tab = browser.new_context(device_scale_factor=2, viewport={"width": 640, "height": 900}, reduced_motion="reduce").new_page()
        for name in NAMES:
            bare = folder / f"{name}.html"
            bare.write_text(page(name), encoding="utf-8")
            tab.goto(bare.as_uri())
            for words in FIRST.get(name, ()):
                tab.get_by_role("button", name=words, include_hidden=True).dispatch_event("click")
            shot = tab.locator(".moving-live").screenshot()
            bare.unlink()
            small = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS)
            small.save(folder / f"{name}.png", optimize=True)
        browser.close()


def main() -> None:
    STILLS.mkdir(exist_ok=True)
    draw(STILLS)
    for path in sorted(STILLS.glob("*.png")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
