"""The progress bar of a training run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Show = Callable[[int, int, float], None]
"""A function of steps done, steps in all, and the loss."""


@contextmanager
def bar(shown: bool | Literal["always"] | Show, total: int, done: int) -> Iterator[Show]:
    """Yields a function of (steps done, steps in all, loss) that moves a bar on stderr, if `shown` asks for one.

    Args:
        shown: True draws on a terminal only; "always" draws wherever stderr goes. A function is told instead.
        total: steps in all.
        done: steps already done.
    """
    if callable(shown):
        yield shown
        return
    console = Console(stderr=True, force_terminal=True if shown == "always" else None)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    disabled = not shown or not console.is_terminal
    with Progress(*columns, console=console, disable=disabled, transient=True) as progress:
        task = progress.add_task("training", total=total, completed=done, loss="…")
        yield lambda steps, of, loss: progress.update(task, completed=steps, total=of, loss=f"{loss:.3f}")
