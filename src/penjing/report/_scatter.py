"""Charts of numbered dots, such as plans by latency and loss, in a unit of their own that the page scales."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

# The chart has `WIDTH` units across, however wide the page draws it.
WIDTH, HEIGHT = 400.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 20.0, 40.0  # margins, which hold the axes' numbers and names
TICKS = 4  # steps of an axis, about
NUMBER_WIDTH, NUMBER_HEIGHT = 16.0, 11.0  # room for the number of a plan
BEYOND = 1.08  # the share of the largest value that an axis reaches


@dataclass(frozen=True)
class Point:
    """A dot and what is said of it.

    Attributes:
        x: how far to the right it is: a value of the axis, or, within a `Chart`, in the chart's units.
        y: how far up it is, in the same way; within a `Chart`, how far down.
        number: what is written beside it where there is room.
        met: whether it is drawn as a good one.
        taken: whether it is drawn as the chosen one.
        said: what is shown where the mouse rests on it.
        x_range: the interval of `x`, drawn as a line; None draws none.
        y_range: the interval of `y`.
        link: the address that a click opens; "" opens none.
    """

    x: float
    y: float
    number: int
    met: bool
    taken: bool
    said: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    link: str = ""


@dataclass(frozen=True)
class Tick:
    """A number at an axis and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Dots between two axes, in the chart's own units.

    Attributes:
        points: the dots.
        numbered: those beside which there is room for their number.
        across: numbers below the chart.
        up: numbers beside it.
        allowed: a limit, as a line up through the chart.
        allowed_up: a limit on what goes upwards, as a line across.
    """

    points: Sequence[Point]
    numbered: Sequence[Point]
    across: Sequence[Tick]
    up: Sequence[Tick]
    allowed: Tick | None
    allowed_up: Tick | None = None

    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def scatter(
    dots: Sequence[Point],
    across: tuple[float, float],
    up: tuple[float, float],
    below: Callable[[float], str],
    beside: Callable[[float], str],
    allowed: tuple[float, str] | None = None,
    allowed_up: tuple[float, str] | None = None,
) -> Chart:
    """Returns a chart.

    Args:
        dots: what is drawn, by their values.
        across: least and largest value of the axis to the right.
        up: least and largest value of the axis upwards.
        below: writes a number of the axis to the right.
        beside: writes a number of the axis upwards.
        allowed: a limit on the first value, and what is written above its line.
        allowed_up: a limit on the second value, and what is written at its line.
    """

    def right(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - across[0]) / (across[1] - across[0]), 1)

    def high(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - up[0]) / (up[1] - up[0]), 1)

    def ends(values: tuple[float, float] | None, at: Callable[[float], float]) -> tuple[float, float] | None:
        return None if values is None else (at(values[0]), at(values[1]))

    points = [
        replace(one, x=right(one.x), y=high(one.y), x_range=ends(one.x_range, right), y_range=ends(one.y_range, high))
        for one in dots
    ]
    return Chart(
        points,
        _numbered(points),
        [Tick(right(value), below(value)) for value in _ticks(*across)],
        [Tick(high(value), beside(value)) for value in _ticks(*up)],
        None if allowed is None else Tick(right(allowed[0]), allowed[1]),
        None if allowed_up is None else Tick(high(allowed_up[0]), allowed_up[1]),
    )


def _numbered(points: Sequence[Point]) -> list[Point]:
    """Returns the points whose numbers don't run into one another: first the one that was taken, then in order."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: not one.taken):
        if all(abs(point.x - one.x) > NUMBER_WIDTH or abs(point.y - one.y) > NUMBER_HEIGHT for one in found):
            found.append(point)
    return found


def _ticks(least: float, most: float) -> list[float]:
    """Returns about `TICKS` round numbers between two values."""
    rough = (most - least) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(step * at, 12) for at in range(math.ceil(least / step), math.floor(most / step) + 1)]
