"""The files that stages leave in `out/.penjing`, so that a run goes on behind the last one that is finished."""

import math
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from penjing.errors import PenjingError
from penjing.graph import Graph, load
from penjing.run.workspace import Held, Workspace, read_json, write_json

ORIGINAL = "original.penjing"  # the original's lowered files have the same name, with the target's suffixes
BASELINE = "baseline.json"  # the original's metric
CANDIDATES = "candidates.json"  # what was measured so far
CHOICE = "choice.json"
TAKEN = "taken.json"  # the candidate that the files below were made for
PRUNED = "pruned.penjing"
CHECKPOINT = "recover.checkpoint"
RECOVERED = "recovered.penjing"
TRAINING = "recovered.json"  # how that training went
CUT = "cut.json"  # what was made in less time than it wants, and under which limit
FINISHED = "finished.json"


def read_graph(path: Path) -> Graph:
    """Reads a graph that this run wrote, however much memory it takes to run: the run has taken it before.

    Raises:
        PenjingError: the file is damaged.
    """
    return load(path, largest=sys.maxsize)


def lowered(suffix: str) -> str:
    """Returns the name of the original's lowered file of a suffix."""
    return f"original{suffix}"


def finished(held: Held, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the stages that are done, up to the first that isn't: what follows that may come out otherwise."""
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
    """Notes that these files would have come out otherwise in more time, or, once they are as they should be, that not.

    Args:
        space: where they are.
        minutes: the limit.
        files: of a stage.
        cut: whether they were made in less time than they want.
    """
    before = _cut(space.held())
    kept = {name: limit for name, limit in before.items() if name not in files}
    now = kept | (dict.fromkeys(files, minutes) if cut and minutes is not None else {})
    if now != before:
        write_json(now, space.inner / CUT)


def outlived(held: Held, minutes: float | None) -> tuple[str, ...]:
    """Returns the files that were made under a shorter limit than this and would come out otherwise now."""
    more = math.inf if minutes is None else minutes
    return tuple(name for name, limit in _cut(held).items() if limit < more)


def _cut(held: Held) -> dict[str, float]:
    if not held.has(CUT):
        return {}
    try:
        found = read_json(held.path(CUT))
    except PenjingError:
        return {}  # then the files are taken as they are
    numbers = isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values())
    return found if numbers else {}


def is_finished(held: Held, suffixes: Sequence[str]) -> bool:
    """Whether there is nothing left to do."""
    lowered_files = [f"model{suffix}" for suffix in suffixes]
    products = ("report.json", "report.html", "model.penjing", *lowered_files, "run.py", "plan.json")
    return held.has(FINISHED) and all((held.out / name).is_file() for name in products)
