"""Lowers the limit on one cost, run by run, as long as the metric holds: the fastest or smallest model that is good enough."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from penjing.budget import Budget
from penjing.errors import PenjingError, unknown_name
from penjing.lines import Lasting
from penjing.run.clock import Clock, seconds_until
from penjing.run.lock import locked
from penjing.run.stages import FINISHED
from penjing.run.workspace import EVIDENCE, INNER, check_folder, read_json, write_json

OBJECTIVES = ("damage", "latency", "size")
FIRST = 0.5  # share of the original's cost that is tried first
STEP = 0.7  # from one share to the next while all are kept, or none is
NEAR = 0.9  # a share that wasn't kept is near one that was, if it is at least this part of it
MOST = 6  # runs at most
TRIES, RECORD = "tries", "objective.json"


@dataclass(frozen=True)
class Try:
    """A finished run under one limit.

    Attributes:
        share: the limit, as a share of the original's cost.
        kept: whether the whole budget was kept, the metric included.
    """

    share: float
    kept: bool


class Ran(Protocol):
    """What a run returns."""

    @property
    def met(self) -> bool:
        """Whether the whole budget was kept."""
        ...


R = TypeVar("R", bound=Ran)


def check_objective(objective: str, budget: Budget) -> None:
    """Makes sure that a cost can be lowered under a budget.

    Raises:
        PenjingError: there is no such objective, the metric isn't limited, or the cost is limited already.
    """
    if objective not in OBJECTIVES:
        raise unknown_name("objective", objective, OBJECTIVES)
    if objective == "damage":
        return
    if budget.drop is None:
        raise PenjingError(
            f"objective='{objective}' needs drop=…: how far the metric may fall while the {objective} is lowered."
        )
    if budget.limit(objective) is not None:
        raise PenjingError(
            f"objective='{objective}' finds the limit on the {objective} itself: leave {objective}=… out, or the objective."
        )


def next_share(tries: Sequence[Try]) -> float | None:
    """Returns the limit that is tried next, as a share of the original's cost; None where no other is worth a run.

    From one half on, limits get tighter by steps as long as they are kept, and looser where none was. Between one that was kept
    and one that wasn't lies the next, until they are near each other.
    """
    if len(tries) >= MOST:
        return None
    if not tries:
        return FIRST
    kept = min((one.share for one in tries if one.kept), default=None)
    missed = max((one.share for one in tries if not one.kept), default=None)
    if kept is None:
        assert missed is not None
        return round(missed / STEP, 3) if missed / STEP < 1 else None
    if missed is None:
        return round(kept * STEP, 3)
    return round(math.sqrt(kept * missed), 3) if missed < NEAR * kept else None


def lowered_limit(
    objective: str,
    budget: Budget,
    out: Path,
    run: Callable[[Budget, Path], R],
    clock: Clock,
    say: Callable[[str], None],
) -> R:
    """Runs under one limit after the other, and delivers the best result into a folder as if it alone had been run there.

    After a kill, the same call goes on with the run that was cut.

    Args:
        objective: the cost, "latency" or "size".
        budget: the other limits.
        out: the folder.
        run: makes a run under a budget, in a folder.
        clock: the time that all runs have.
        say: called with lines for the user.
    """
    check_folder(out)
    folder, record = out / INNER / TRIES, out / INNER / TRIES / RECORD
    settings = {"objective": objective, "budget": str(budget)}
    tries = _earlier(record, settings, out)
    longest, last = 0.0, None
    cut: R | None = None

    def run_at(share: float) -> R:
        return run(replace(budget, **{objective: f"{share}x"}), folder / f"{share}x")

    with locked(folder, out):
        while (share := next_share(tries)) is not None:
            if tries and seconds_until(clock.end) < longest:
                say(Lasting("There is no time for another run."))
                break
            place = folder / f"{share}x"
            if last is not None and (last / INNER / EVIDENCE).is_dir() and not place.exists():
                shutil.copytree(
                    last / INNER / EVIDENCE, place / INNER / EVIDENCE
                )  # what was found out about the original
            say(Lasting(f"Run {len(tries) + 1}: {objective} {share}x."))
            start = time.monotonic()
            done = run_at(share)
            longest, last = max(longest, time.monotonic() - start), place
            if not (place / INNER / FINISHED).exists():  # Ctrl-C or the time limit: whether it holds isn't known
                cut = done
                break
            tries.append(Try(share, done.met))
            write_json({"settings": settings, "tries": [vars(one) for one in tries]}, record)
        kept = [one.share for one in tries if one.kept]
        if kept or cut is None:
            best = min(kept, default=max((one.share for one in tries), default=FIRST))
            told = ", ".join(f"{one.share}x {'kept' if one.kept else 'missed'}" for one in tries)
            say(Lasting(f"The runs: {told}. Delivered: {best}x."))
            done, place = run_at(best), folder / f"{best}x"
        _deliver(place, out)
    return done


def _earlier(record: Path, settings: dict[str, str], out: Path) -> list[Try]:
    """Returns the runs that an earlier call finished.

    Raises:
        PenjingError: the folder holds runs with another objective or budget.
    """
    if not record.exists():
        return []
    found = read_json(record)
    if not isinstance(found, dict) or found.get("settings") != settings:
        raise PenjingError(
            f"{out} holds runs with another objective or budget: give another folder, or remove that one."
        )
    return [Try(float(one["share"]), bool(one["kept"])) for one in found["tries"]]


def _deliver(made: Path, out: Path) -> None:
    """Copies a run into another folder: what makes it a run's folder first, what makes it a finished one last."""
    inner = shutil.ignore_patterns("lock", FINISHED)
    shutil.copytree(made / INNER, out / INNER, dirs_exist_ok=True, ignore=inner)
    for path in made.iterdir():
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    if (made / INNER / FINISHED).exists():
        shutil.copyfile(made / INNER / FINISHED, out / INNER / FINISHED)
