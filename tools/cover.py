"""Draws what stands on the cover: the picture of the first page, the logo, and the image that a shared link shows.

The picture is computed and not invented: it is the toy of ``notebooks/wrong_maximiser``, two weights and thirteen samples, searched on the same grid.
``tools/build_book.py`` writes it at every build. The logo and the shared image are kept in ``book/_static``; `python tools/cover.py` makes them
again, and needs Chromium for the image. Nothing here needs torch.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path

import browsers

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"

# The toy: weights (1, 0), a ball of radius 0.3, and samples that are right where their product with the weights is positive.
RADIUS, WEIGHTS, MU = 0.3, (1.0, 0.0), 1.5
SAMPLES = [(0.14, 1.0), (0.16, 1.0), (0.18, 1.0), (0.2, 1.0), *[(5.0, -1.0)] * 8, (-4.0, 0.0)]
SHIFT = math.log(math.e - 1)

CENTRE, DRAWN = (134.0, 132.0), 116.0  # of the ball, in the units of the drawing
INK = {"sam": "#0072b2", "bisam": "#d55e00"}


# -- the toy ---------------------------------------------------------------------------------------------------------------


def margins(step: tuple[float, float]) -> list[float]:
    """By how much the wrong class of each sample is ahead after a step."""
    w = (WEIGHTS[0] + step[0], WEIGHTS[1] + step[1])
    return [-(w[0] * z[0] + w[1] * z[1]) for z in SAMPLES]


def wrong(step: tuple[float, float]) -> list[bool]:
    """Which samples are misclassified after a step."""
    return [margin > 0 for margin in margins(step)]


def cross_entropy(margin: float) -> float:
    return math.log1p(math.exp(margin))


def lower_bound(margin: float) -> float:
    """The surrogate of one sample with two classes, for -log: the smooth maximum of 0 and of the bound of the margin."""
    phi = 1 - math.log1p(math.exp(SHIFT - margin))
    return math.log((1 + math.exp(MU * phi)) / 2) / MU


@cache
def highest(loss) -> tuple[float, float]:
    """The step in the ball after which the mean of a loss is highest, on the grid of the notebook."""
    grid = [(RADIUS * r / 60, 2 * math.pi * a / 720) for r in range(61) for a in range(720)]
    steps = [(r * math.cos(a), r * math.sin(a)) for r, a in grid]
    kinds = {sample: SAMPLES.count(sample) for sample in SAMPLES}

    def total(step):
        w = (WEIGHTS[0] + step[0], WEIGHTS[1] + step[1])
        return sum(times * loss(-(w[0] * z[0] + w[1] * z[1])) for z, times in kinds.items())

    return max(steps, key=total)


# -- the picture of the first page -----------------------------------------------------------------------------------------


def idea() -> str:
    """The ball, the two arrows and the samples that are wrong at their ends, as a drawing whose colours the stylesheet sets."""
    ends = {"sam": highest(cross_entropy), "bisam": highest(lower_bound)}
    counts = {name: sum(wrong(end)) for name, end in ends.items()}
    before = wrong((0.0, 0.0))
    said = (
        f"A ball with two arrows from its centre. The arrow of SAM leads to the highest loss, to the right, where {counts['sam']} of {len(SAMPLES)} samples is wrong, "
        f"the one that was wrong before. The arrow of BiSAM leads down, into the part of the ball where {counts['bisam']} of {len(SAMPLES)} samples are wrong."
    )
    rows = [("the weights now", "now", before), ("after SAM's climb", "sam", wrong(ends["sam"])), ("after BiSAM's climb", "bisam", wrong(ends["bisam"]))]
    parts = [
        '<svg class="idea" role="img" aria-labelledby="idea-said" viewBox="0 0 360 376">',
        f'<title id="idea-said">{said}</title>',
        f'<clipPath id="idea-ball"><circle cx="{CENTRE[0]:g}" cy="{CENTRE[1]:g}" r="{DRAWN:g}"/></clipPath>',
        f'<circle class="ball" cx="{CENTRE[0]:g}" cy="{CENTRE[1]:g}" r="{DRAWN:g}"/>',
        *(region(sample) for sample in SAMPLES[:4]),
        *(arrow(end, name) for name, end in ends.items()),
        f'<circle class="here" cx="{CENTRE[0]:g}" cy="{CENTRE[1]:g}" r="5"/>',
        words(CENTRE[0], 62, "all weights within", "note middle"), words(CENTRE[0], 80, "the radius", "note middle"),
        words(CENTRE[0] - 12, 126, "the weights now", "note end"),
        words(264, 160, "SAM", "sam name"), words(264, 178, "highest loss:", "note"), words(264, 196, f"{counts['sam']} of {len(SAMPLES)} wrong", ""),
        words(214, 240, "BiSAM", "bisam name"), words(214, 258, "highest lower bound:", "note"), words(214, 276, f"{counts['bisam']} of {len(SAMPLES)} wrong", ""),
        *(mark for k, (label, name, broken) in enumerate(rows) for mark in row(318 + 24 * k, label, name, broken, before)),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def place(step: tuple[float, float]) -> tuple[float, float]:
    """Where a step ends in the drawing."""
    return CENTRE[0] + step[0] / RADIUS * DRAWN, CENTRE[1] - step[1] / RADIUS * DRAWN


def region(sample: tuple[float, float]) -> str:
    """The part of the ball in which a sample is wrong: below a straight line."""
    edge = [place((x, -sample[0] * (WEIGHTS[0] + x) / sample[1])) for x in (-RADIUS, RADIUS)]
    corners = [*edge, place((RADIUS, -2 * RADIUS)), place((-RADIUS, -2 * RADIUS))]
    return f'<polygon class="mistakes" clip-path="url(#idea-ball)" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'


def arrow(step: tuple[float, float], name: str, width: float = 4, head: float = 14) -> str:
    """An arrow from the weights to the end of a step."""
    x, y = place(step)
    length = math.dist((x, y), CENTRE)
    along = ((x - CENTRE[0]) / length, (y - CENTRE[1]) / length)
    neck = (x - head * along[0], y - head * along[1])
    wings = [(neck[0] + side * head / 2 * along[1], neck[1] - side * head / 2 * along[0]) for side in (-1, 1)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in ((x, y), *wings))
    line = f'<line x1="{CENTRE[0]:g}" y1="{CENTRE[1]:g}" x2="{neck[0]:.1f}" y2="{neck[1]:.1f}" stroke-width="{width:g}"/>'
    return f'<g class="arrow {name}">{line}<polygon points="{points}"/></g>'


def words(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{text}</text>'


def row(y: float, label: str, name: str, broken: list[bool], before: list[bool]) -> list[str]:
    """One line of samples: a dot for each that is right, a cross for each that is wrong, and a heavier one for what has just become wrong."""
    marks = [words(0, y + 5, label, f"{name} row")]
    for k, (is_wrong, was_wrong) in enumerate(zip(broken, before, strict=True)):
        x = 136 + 18 * k
        if is_wrong:
            kind = "wrong" if was_wrong else f"wrong new {name}"
            marks.append(f'<path class="{kind}" d="M{x - 5} {y - 5:g}l10 10m0 -10l-10 10"/>')
        else:
            marks.append(f'<circle class="right" cx="{x}" cy="{y:g}" r="5"/>')
    return marks


# -- logo and shared image --------------------------------------------------------------------------------------------------


def logo() -> str:
    """The ball and its two arrows, plain enough for sixteen pixels; its colours stand out from white and from black."""
    return """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" role="img" aria-label="A ball with two arrows">
<circle cx="16" cy="16" r="13.5" fill="#8d96a0" fill-opacity=".18" stroke="#7d8590" stroke-width="3"/>
<g stroke-width="3.6" fill="none"><path stroke="#2488cc" d="M16 16L21.5 10.5"/><path stroke="#e0702a" d="M16 16L13.8 21.5"/></g>
<path fill="#2488cc" d="M25.4 6.6L24 14.4L17.6 8z"/><path fill="#e0702a" d="M11.2 27.4L9.6 19.6L17.9 22.9z"/>
</svg>
"""


def shared() -> str:
    """The page of which the shared image is a picture."""
    drawing = idea().replace("\n", " ")
    style = (STATIC / "front.css").read_text(encoding="utf-8")
    return f"""<!doctype html><meta charset="utf-8"><style>{style}
body {{ margin: 0; width: 1200px; height: 630px; display: flex; align-items: center; gap: 60px; padding: 0 64px; box-sizing: border-box;
  background: #fff; color: #1a1a1a; font-family: "Liberation Sans", Arial, sans-serif; }}
h1 {{ font-size: 66px; line-height: 1.1; margin: 0 0 24px; }} p {{ font-size: 34px; line-height: 1.35; margin: 0; color: #454c55; }}
svg.idea {{ width: 540px; flex: none; --idea-ink: #1a1a1a; --idea-muted: #454c55; --idea-ball: #f3f5f7; }}
</style><div><h1>Sharpness-aware training</h1><p>SAM and BiSAM: derived, tried and judged. An executable book.</p></div>{drawing}"""


def main() -> int:
    (STATIC / "logo.svg").write_text(logo(), encoding="utf-8")
    browser = browsers.chromium()
    if browser is None:
        print("==> no shared image: no Chromium is installed", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        tab = chromium.new_page(viewport={"width": 1200, "height": 630})
        tab.set_content(shared())
        tab.screenshot(path=STATIC / "shared.png")
        chromium.close()
    print(f"==> {STATIC / 'logo.svg'} and {STATIC / 'shared.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
