"""Draws what `plan.py` found: accuracy over latency, a panel for each network and batch, as an SVG that pages can show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from _plan_ways import WAYS
from _tables import RESULTS

WIDTH, HEIGHT = 430, 340  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 34, 48  # margins within a panel, in pixels
ROOM = 0.06  # of each axis, beyond the outermost points
TICKS = 5  # at most, on each axis
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # between ticks
COLOURS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b6914", "#7a3fa0")
# Shapes around the origin, so that nothing is told by colours alone.
SHAPES = (
    "M-5 0H5M0 -5V5", "M-4 -4H4V4H-4Z", "M0 -6L5 4H-5Z", "M0 -5L5 0L0 5L-5 0Z", "M0 6L5 -4H-5Z", "M-4 -4L4 4M-4 4L4 -4",
    "M-5 -3L5 -3L0 5Z", "M-3 -5H3V5H-3Z", "M-5 -2H5V2H-5Z",
)  # fmt: skip

Point = tuple[float, float]
"""Latency over that of the original, and accuracy."""


def draw(panels: Mapping[str, Mapping[str, Sequence[Point]]]) -> Path:
    """Writes docs/plan.svg and returns its path.

    Args:
        panels: by title, the points of each way; "original" is the way of the unchanged network.
    """
    names = ["original", *WAYS]
    style = {name: {"colour": COLOURS[at], "shape": SHAPES[at]} for at, name in enumerate(names)}
    used = [name for name in names if any(name in panel for panel in panels.values())]
    file = RESULTS.with_name("plan.svg")
    template = jinja2.Template(
        (Path(__file__).parent / "pareto.svg.j2").read_text(), trim_blocks=True, lstrip_blocks=True
    )
    drawn = [_panel(title, ways, at * WIDTH) for at, (title, ways) in enumerate(panels.items())]
    file.write_text(template.render(
        panels=drawn, style=style, used=used, width=WIDTH * len(drawn), height=HEIGHT, left=LEFT, right=WIDTH - RIGHT, top=TOP,
        bottom=HEIGHT - BOTTOM,
    ))  # fmt: skip
    return file


def front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other is both faster and more accurate than, by latency."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one[0], -one[1])):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found


def _panel(title: str, ways: Mapping[str, Sequence[Point]], offset: int) -> dict[str, Any]:
    points = [point for some in ways.values() for point in some]
    x = _Axis([one[0] for one in points], LEFT, WIDTH - RIGHT)
    y = _Axis([one[1] for one in points], HEIGHT - BOTTOM, TOP)
    return {
        "title": title,
        "offset": offset,
        "across": [{"at": x(value), "text": f"{value:g}×"} for value in x.ticks],
        "up": [{"at": y(value), "text": f"{100 * value:g}%"} for value in y.ticks],
        "marks": [{"way": way, "x": x(a), "y": y(b)} for way, some in ways.items() for a, b in some],
        "lines": [" ".join(f"{x(a)},{y(b)}" for a, b in sorted(some)) for some in ways.values() if len(some) > 1],
        "front": " ".join(f"{x(a)},{y(b)}" for a, b in front(points)),
    }


class _Axis:
    """An axis: from values to pixels, with ticks at round values."""

    def __init__(self, values: Sequence[float], first: int, last: int) -> None:
        room = ROOM * (max(values) - min(values)) or ROOM * max(values) or 1.0
        self._low, self._high, self._first, self._last = min(values) - room, max(values) + room, first, last
        step = next((one for one in STEPS if (self._high - self._low) / one <= TICKS), 1.0)
        begin = -(-self._low // step)
        self.ticks = [round((begin + n) * step, 6) for n in range(TICKS + 1) if (begin + n) * step <= self._high]

    def __call__(self, value: float) -> float:
        """Returns the pixel of a value."""
        share = (value - self._low) / (self._high - self._low)
        return round(self._first + share * (self._last - self._first), 1)
