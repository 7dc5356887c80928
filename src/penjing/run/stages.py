"""The files that stages write to `out/.penjing`, from which an interrupted run resumes behind its last finished stage."""

import math
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from penjing.errors import PenjingError
from penjing.graph import Graph, load
from penjing.run.workspace import EarlierContent, Workspace, read_json, write_json

ORIGINAL = "original.penjing"  # the original's graph; its lowered files have the same name with the target's suffixes
BASELINE = "baseline.json"  # the original's metric
CANDIDATES = "candidates.json"  # the candidates measured so far
CHOICE = "choice.json"
MISSES = "misses.json"  # the finished models that missed the budget, after which another candidate was chosen
MISSED = "missed"  # the last of them: its lowered files have this name with the target's suffixes
TAKEN = "taken.json"  # the candidate that the files below were made for
PRUNED = "pruned.penjing"
CHECKPOINT = "recover.checkpoint"
RECOVERED = "recovered.penjing"
TRAINING = "recovered.json"  # how the training of the recovered graph went
MEASURED_EARLIER = "earlier.json"  # the candidates that the run measured with which this one began
START = "start.penjing"  # the graph that it trained, with whose weights training begins; for the candidate in `TAKEN`
CUT = "cut.json"  # the files that a time limit cut short, and that limit
FINISHED = "finished.json"


def read_graph(path: Path) -> Graph:
    """Reads a graph that this run wrote, without a limit on the memory that running it takes: this run has run it before.

    Raises:
        PenjingError: the file is damaged.
    """
    return load(path, largest=sys.maxsize)


def lowered(suffix: str) -> str:
    """Returns the name of the original's lowered file with this suffix."""
    return f"original{suffix}"


def finished(held: EarlierContent, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the finished stages up to the first unfinished one: later results depend on the latter."""
    files = {
        "capture": (ORIGINAL,),
        "profile": (*map(lowered, suffixes), BASELINE),
        "choose": (CHOICE,),
        "prune": (PRUNED,),
        "recover": (RECOVERED,),
    }
    if is_finished(held, suffixes):
        return (*files, "quantise", "lower", "verify", "report")
    return tuple(takewhile(lambda stage: held.has(*files[stage]), files))


def note_cut(space: Workspace, minutes: float | None, files: Sequence[str], cut: bool) -> None:
    """Records whether the time limit cut the work on these files short; a complete file clears the record.

    Args:
        space: the folder of the run.
        minutes: the time limit.
        files: the files of a stage.
        cut: whether their stage had less time than it needed.
    """
    before = _cut(space.held())
    kept = {name: limit for name, limit in before.items() if name not in files}
    now = kept | (dict.fromkeys(files, minutes) if cut and minutes is not None else {})
    if now != before:
        write_json(now, space.inner / CUT)


def outlived(held: EarlierContent, minutes: float | None) -> tuple[str, ...]:
    """Returns the files that a shorter limit than this one cut short, and that would be different now."""
    more = math.inf if minutes is None else minutes
    return tuple(name for name, limit in _cut(held).items() if limit < more)


def _cut(held: EarlierContent) -> dict[str, float]:
    if not held.has(CUT):
        return {}
    try:
        found: dict[str, float] = read_json(held.path(CUT), dict[str, int | float])
    except PenjingError:
        return {}  # without a readable record the files count as complete
    return found


def is_finished(held: EarlierContent, suffixes: Sequence[str]) -> bool:
    """Tells whether all stages are finished."""
    lowered_files = [f"model{suffix}" for suffix in suffixes]
    products = ("report.json", "report.html", "model.penjing", *lowered_files, "run.py", "plan.json")
    return held.has(FINISHED) and all((held.out / name).is_file() for name in products)
