"""Draws the suite's training steps: a group of bars a problem, the height is the time on a logarithmic scale.

A line across a group is the physical limit. Colours follow the reader's light or dark scheme.

    python benchmarks/plot.py [--json benchmarks/results/suite.json] [--svg docs/benchmarks.svg]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent
BAR, GAP, TOP, HEIGHT, LEFT = 15, 26, 64, 260, 52  # pixels
LIMIT = "limit"
COLOURS = [  # of a bar on light and on dark ground; told apart by lightness too
    ("#1f5fb4", "#6ea8fe"),
    ("#e0803a", "#f0a366"),
    ("#b5532a", "#c97a52"),
    ("#2f8f6b", "#63c7a0"),
    ("#8f6bb8", "#b79ae0"),
    ("#9a9a9a", "#8a8f98"),
]
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .small { font-size: 11px; fill: #57606a }
  .ground { fill: #ffffff }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .limit { stroke: #24292f; stroke-width: 2; stroke-dasharray: 5 3 }
"""
DARK = """
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .ground { fill: #0d1117 }
    .grid { stroke: #3d444d }
    .limit { stroke: #e6edf3 }
"""


class Scale:
    """Pixels of a time in microseconds: whole powers of ten at both ends."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / max(self.high - self.low, 1)
        return TOP + HEIGHT * (1 - share)

    def ticks(self) -> list[float]:
        """The powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def style(bars: int) -> str:
    """The style sheet: bar colours by class, both schemes."""
    light = "".join(f"  .bar{i} {{ fill: {COLOURS[i % len(COLOURS)][0]} }}\n" for i in range(bars))
    dark = "".join(f"    .bar{i} {{ fill: {COLOURS[i % len(COLOURS)][1]} }}\n" for i in range(bars))
    return f"<style>{STYLE}{light}  @media (prefers-color-scheme: dark) {{{DARK}{dark}  }}\n</style>"


def shown(microseconds: float) -> str:
    """A time with its unit."""
    for unit, factor in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if microseconds >= factor:
            return f"{microseconds / factor:.3g} {unit}"
    return f"{microseconds:.2g} µs"


def grid(scale: Scale, width: float) -> Iterator[str]:
    """A line and a label for each power of ten."""
    for tick in scale.ticks():
        y = scale(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="small" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown(tick)}</text>'


def legend(names: Sequence[str]) -> Iterator[str]:
    """What colour is whose, and the limit's line."""
    x = LEFT
    for number, name in enumerate(names):
        yield f'<rect class="bar{number}" x="{x}" y="30" width="12" height="12"/>'
        yield f'<text x="{x + 17}" y="41">{escape(name)}</text>'
        x += 34 + 7 * len(name)
    yield f'<line class="limit" x1="{x}" x2="{x + 24}" y1="36" y2="36"/><text x="{x + 30}" y="41">physical limit</text>'


def group(title: str, seconds: dict[str, float], names: Sequence[str], scale: Scale, x: float) -> Iterator[str]:
    """The bars of a problem, its limit and its name below, a line for each part between commas."""
    for number, name in enumerate(names):
        if name in seconds:
            y, left = scale(seconds[name] * 1e6), x + number * BAR
            tip = f"<title>{escape(name)}: {shown(seconds[name] * 1e6)}</title>"
            yield (
                f'<rect class="bar{number}" x="{left}" y="{y:.1f}" width="{BAR - 2}" '
                f'height="{TOP + HEIGHT - y:.1f}">{tip}</rect>'
            )
    if LIMIT in seconds:
        y = scale(seconds[LIMIT] * 1e6)
        yield f'<line class="limit" x1="{x - 5}" x2="{x + len(names) * BAR + 3}" y1="{y:.1f}" y2="{y:.1f}"/>'
    middle = x + len(names) * BAR / 2
    for line, part in enumerate(title.split(", ")):
        y = TOP + HEIGHT + 18 + 14 * line
        yield f'<text class="small" x="{middle:.1f}" y="{y}" text-anchor="middle">{escape(part)}</text>'


def draw(found: dict[str, Any]) -> str:
    """The picture of the suite's training figures, as SVG."""
    rows = {title: row["seconds"] for title, row in found["training"].items()}
    every = {name for seconds in rows.values() for name in seconds}
    first = next(iter(rows.values()))
    names = [name for name in [*first, *sorted(every - set(first))] if name != LIMIT]
    scale = Scale([value * 1e6 for seconds in rows.values() for value in seconds.values()])
    pitch = max(len(names) * BAR + GAP, 122)
    width, height = LEFT + len(rows) * pitch + 8, TOP + HEIGHT + 72
    facts = found["machine"]
    cores = "one core" if found["cores_used"] == 1 else f"{found['cores_used']} cores"
    subject = f"Time of a training step on {cores} of {facts['processor']}, logarithmic scale; shorter is faster"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{subject}">',
        style(len(names)),
        f'<rect class="ground" width="{width}" height="{height}"/>',  # the page's own ground may be of the other scheme
        f'<text x="{LEFT}" y="18" font-weight="600">{escape(subject)}</text>',
        *legend(names),
        *grid(scale, width),
    ]
    for number, (title, seconds) in enumerate(rows.items()):
        parts += group(title, seconds, names, scale, LEFT + number * pitch + (pitch - len(names) * BAR) / 2)
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HOME / "benchmarks" / "results" / "suite.json")
    parser.add_argument("--svg", type=Path, default=HOME / "docs" / "benchmarks.svg")
    options = parser.parse_args()
    options.svg.write_text(draw(json.loads(options.json.read_text())), encoding="utf-8")
