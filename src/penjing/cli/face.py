"""The face of a run on a terminal: a few lines that are drawn over in place, below the lines that stay.

Where standard output is no terminal, every line is printed, one below the other.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.text import Text

from penjing.cli.screen import Screen, printable, styled
from penjing.lines import Lasting

if TYPE_CHECKING:
    from penjing.planning import MeasuredPlan
    from penjing.run.progress import Progress

REDRAWN = 1.0  # times per second; more often would disturb what is measured meanwhile
MINUTE = 60  # seconds
ROUNDED = 10  # seconds to which times below `MINUTES_FROM` are rounded: they are estimates
MINUTES_FROM = 10 * MINUTE  # seconds from which times are told in whole minutes


class Face:
    """Says lines, and shows where a run is: use it as `say` and its `watch` as `watch`, in a `with` block.

    On a terminal, lines that aren't `Lasting` are drawn over once a run has begun. The end of the block takes the drawn lines
    away, however it ends.
    """

    def __init__(self, as_json: bool = False) -> None:
        """Takes whether standard output holds JSON; lines then go to standard error."""
        self._screen = Screen(stderr=as_json, soft_wrap=True)
        on_terminal = sys.stdout.isatty() and self._screen.file.isatty() and not self._screen.is_dumb_terminal
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._line = ""
        self.watch = self._watch if on_terminal else None
        """Takes where a run is; None where nothing is drawn."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, line: str) -> None:
        """Says a line: it stays if it is `Lasting` or nothing is drawn, and else stands among the drawn lines until the next."""
        if self._live is None or isinstance(line, Lasting):
            self._screen.print(str(line))
        else:
            self._line = line
            self._live.refresh()

    def _watch(self, progress: "Progress") -> None:
        stage = None if self._progress is None else self._progress.stage
        self._progress = progress
        if self._live is None:
            self._live = Live(
                console=self._screen, get_renderable=self._drawn, refresh_per_second=REDRAWN, transient=True
            )
            self._live.start(refresh=True)
        elif progress.stage != stage:
            self._line = ""
            self._live.refresh()

    def _drawn(self) -> Group:
        assert self._progress is not None  # it is drawn only once a run has begun
        rows = drawn_lines(self._progress, self._line, time.monotonic())
        return Group(
            *(
                Text.assemble(styled(f"{name:<6}", "dim"), text, no_wrap=True, overflow="ellipsis")
                for name, text in rows
            )
        )


def drawn_lines(progress: "Progress", line: str, now: float) -> list[tuple[str, Text]]:
    """Returns what is drawn: the name and the text of each line.

    Args:
        progress: where the run is.
        line: the last line that was said.
        now: the value of `time.monotonic()`.
    """
    from penjing.run.progress import STAGES

    at = STAGES.index(progress.stage)
    marks = [
        ("✓ ", "green") if index < at else ("▸ ", "bold") if index == at else ("· ", "dim")
        for index in range(len(STAGES))
    ]
    stages = Text("  ").join(styled(mark + name, style) for (mark, style), name in zip(marks, STAGES, strict=True))
    latest = line.strip().partition("\n")[0]
    if progress.steps:
        latest = f"step {progress.step:,} of {progress.steps:,}, loss {progress.loss:.3f}"
    return [
        ("stage", stages),
        ("left", Text(left_words(progress.ends - now, progress.after))),
        ("best", Text("nothing was measured yet" if progress.best is None else best_words(progress.best))),
        ("now", styled(printable(latest), "dim")),
    ]


def left_words(seconds: float, after: float = 0.0) -> str:
    """Says how much time is left, as roughly as it is known.

    Args:
        seconds: the estimate, less the time that has passed since.
        after: how many of them belong to later parts of the run.
    """
    if seconds < after:  # the part that runs should be over
        return f"longer than expected{f', and then {left_words(after)}' if after else ''}"
    if seconds < ROUNDED:
        return "a few seconds"
    if seconds >= MINUTES_FROM:
        return f"about {seconds / MINUTE:.0f} min"
    minutes, rest = divmod(round(seconds / ROUNDED) * ROUNDED, MINUTE)
    return "about " + " ".join(filter(None, (f"{minutes} min" if minutes else "", f"{rest} s" if rest else "")))


def best_words(best: "MeasuredPlan") -> str:
    """Says what the best plan so far costs, and whether it keeps the budget."""
    parts = [] if best.expected is None else [f"{best.expected:.2f}× the latency"]
    parts.append(f"{best.size_bytes:,} bytes")
    if best.damage:
        parts.append(f"expected loss {best.damage:+.3g}")
    parts.append("keeps the budget" if best.meets else "misses the budget")
    return ", ".join(parts)
