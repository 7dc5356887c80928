"""Lowers the limit on one cost, run by run, as long as the metric holds: the fastest or smallest model that is good enough."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import msgspec

from penjing import records
from penjing.budget import Budget
from penjing.errors import PenjingError, unknown_name
from penjing.files import atomic_path, is_temporary
from penjing.lines import Lasting
from penjing.run.clock import Clock, seconds_until
from penjing.run.lock import LOCK, locked
from penjing.run.stages import FINISHED
from penjing.run.workspace import EVIDENCE, INNER, RECORD, check_folder, write_json, writing

OBJECTIVES = ("damage", "latency", "size")
FIRST = 0.5  # share of the original's cost that is tried first
STEP = 0.7  # from one share to the next while all are kept, or none is
NEAR = 0.9  # a share that wasn't kept is near one that was, if it is at least this part of it
MOST = 6  # runs at most
TRIES = "tries"  # the folder of all runs, one folder for each
FINDINGS = "objective.json"  # the record of how they ended


@dataclass(frozen=True)
class Try:
    """A finished run under one limit.

    Attributes:
        share: the limit, as a share of the original's cost.
        kept: whether the whole budget was kept, the metric included.
    """

    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    kept: bool


@dataclass(frozen=True)
class _Findings:
    """The record of the runs that are finished.

    Attributes:
        settings: the objective, and the budget that all runs keep.
        tries: the runs, in order.
    """

    settings: dict[str, str]
    tries: tuple[Try, ...]


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


def first_run(objective: str, budget: Budget, out: Path) -> tuple[Budget, Path]:
    """Returns the budget and the folder of the first run.

    Raises:
        PenjingError: the folder of all runs holds something else.
    """
    check_folder(out)
    return _limited(objective, budget, FIRST), _place(out, FIRST)


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
        run: makes a run under a budget, in a folder; raises an error where the folder holds a run with other settings.
        clock: the time that all runs have.
        say: called with lines for the user.

    Raises:
        PenjingError: the folder holds something else, is in use, or can't be written.
    """
    check_folder(out)
    settings = {"objective": objective, "budget": str(budget)}

    def run_at(share: float) -> R:
        return run(_limited(objective, budget, share), _place(out, share))

    with locked(out / INNER, out):
        tries = _earlier(out, settings, say)
        if tries and next_share(tries) is not None:
            run_at(tries[-1].share)  # it is finished, so it is read, unless it was made with other settings
        cut = None
        longest = 0.0  # seconds of the longest run of this call
        result: dict[float, R] = {}  # of the best run of this call, by its share
        while (share := next_share(tries)) is not None:
            if tries and seconds_until(clock.end) < longest:
                say(Lasting("There is no time for another run."))
                break
            place = _place(out, share)
            if tries:
                _share_evidence(_place(out, tries[-1].share), place)
            say(Lasting(f"Run {len(tries) + 1}: {objective} {share}x."))
            start = time.monotonic()
            done = run_at(share)
            longest = max(longest, time.monotonic() - start)
            if not (place / INNER / FINISHED).exists():  # Ctrl-C or the time limit: whether it holds isn't known
                cut = done
                break
            if done.met or not any(
                one.kept for one in tries
            ):  # limits get tighter once one is kept, and looser until then
                result = {share: done}
            tries.append(Try(share, done.met))
            with writing(out):
                write_json({"settings": settings, "tries": [vars(one) for one in tries]}, _findings(out))
        kept = [one.share for one in tries if one.kept]
        if kept or cut is None:
            best = min(kept, default=max((one.share for one in tries), default=FIRST))
            told = ", ".join(f"{one.share}x {'kept' if one.kept else 'missed'}" for one in tries)
            say(Lasting(f"The runs: {told}. Delivered: {best}x."))
            done, place = result[best] if best in result else run_at(best), _place(out, best)
        _deliver(place, out)
    return done


def _limited(objective: str, budget: Budget, share: float) -> Budget:
    return replace(budget, **{objective: f"{share}x"})


def _place(out: Path, share: float) -> Path:
    """Returns the folder of the run under a limit."""
    return out / INNER / TRIES / f"{share}x"


def _findings(out: Path) -> Path:
    return out / INNER / TRIES / FINDINGS


def _earlier(out: Path, settings: dict[str, str], say: Callable[[str], None]) -> list[Try]:
    """Returns the runs that an earlier call finished; none if their record is damaged, which is told.

    Raises:
        PenjingError: the folder holds a single run, or runs with another objective or budget.
    """
    path = _findings(out)
    if not path.exists():
        if (out / INNER / RECORD).exists() and not path.parent.exists():
            raise PenjingError(f"{out} holds a run without this objective: give another folder, or remove that one.")
        return []
    try:
        found = records.convert(records.read(path), _Findings)
    except PenjingError as damage:
        say(Lasting(f"{path} is damaged ({damage}): all limits are tried again. Runs that are finished are only read."))
        return []
    if found.settings != settings:
        raise PenjingError(
            f"{out} holds runs with another objective or budget: give another folder, or remove that one."
        )
    return list(found.tries)


def _share_evidence(earlier: Path, place: Path) -> None:
    """Copies what an earlier run found out about the original into the folder of the next one."""
    with writing(place):
        for path in sorted((earlier / INNER / EVIDENCE).glob("*")):
            copy = place / INNER / EVIDENCE / path.name
            if path.is_file() and not is_temporary(path) and not copy.exists():
                _copy(path, copy)


def _deliver(made: Path, out: Path) -> None:
    """Copies a run into another folder, in place of what was delivered there before.

    The record that makes the folder a run's is never missing, and the one that makes it a finished run's comes last. So after a
    kill the folder is taken for an unfinished run's, which the same call delivers again.
    """
    inner, stays = out / INNER, (TRIES, LOCK, RECORD)
    with writing(out):
        (inner / FINISHED).unlink(missing_ok=True)
        if (made / INNER / RECORD).exists():
            _copy(made / INNER / RECORD, inner / RECORD)
        for path in sorted(inner.iterdir()):
            if path.is_dir() and path.name not in stays:
                shutil.rmtree(path)
            elif path.name not in stays:
                path.unlink()
        last = made / INNER / FINISHED
        passed = (last, made / INNER / LOCK, made / INNER / RECORD)
        for path in sorted(made.rglob("*")):
            if path.is_file() and path not in passed and not is_temporary(path):
                _copy(path, out / path.relative_to(made))
        if last.exists():
            _copy(last, inner / FINISHED)


def _copy(path: Path, copy: Path) -> None:
    """Copies a file, whole or not at all."""
    with atomic_path(copy) as temporary:
        shutil.copyfile(path, temporary)
