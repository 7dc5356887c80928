"""Closes the loop: where the finished model misses the budget that its candidate kept, prices are corrected by what was measured.

Then another candidate is chosen, trained and verified. A machine whose speed changes from minute to minute may be measured in one
phase while candidates are compared, and in another phase at the end.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penjing.budget import Budget
from penjing.errors import PenjingError
from penjing.files import atomic_paths
from penjing.planning import Anchor, MeasuredPlan, Problem, Solution, by_level, corrected, write_journal
from penjing.run import stages
from penjing.run.clock import Clock, seconds_until
from penjing.run.workspace import Workspace, read_json, write_json
from penjing.targets import find_target, open_artifact

ROUNDS = 3  # solutions that are trained and verified at most
OF_A_ROUND = ("prune", "recover", "quantise", "lower", "verify")  # the stages that each round passes


@dataclass(frozen=True)
class Miss:
    """A finished model that took longer than its candidate.

    Attributes:
        candidate: what the candidate was, in words.
        integer: whether it computes in integers.
        expected: latency over that of the original that was expected of it.
        reached: that of the finished model.
        allowed: the budget's limit over the original's latency.
    """

    candidate: str
    integer: bool
    expected: float
    reached: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"{self.candidate}: {self.expected:.2f}× the latency were measured before training and {self.reached:.2f}× "
            f"after it, where {self.allowed:.2f}× are allowed; costs were corrected by that"
        )


def misses_of(space: Workspace) -> list[Miss]:
    """Returns the misses of earlier rounds; none where their file is damaged, so that there may be a round more."""
    path = space.inner / stages.MISSES
    try:
        return list(read_json(path, tuple[Miss, ...])) if path.exists() else []
    except PenjingError:
        return []


def anchor_of(space: Workspace, target: str) -> Anchor | None:
    """Returns the finished model of the last round that missed the budget; None where there was none, or its file is damaged."""
    misses, path = misses_of(space), space.inner / f"{stages.MISSED}{find_target(target).suffix}"
    if not misses or not path.exists():
        return None
    try:
        return Anchor(open_artifact(path, target), misses[-1].reached, misses[-1].integer)
    except PenjingError:
        return None  # candidates are then compared with the original alone


def missed_latency(budget: Budget, taken: MeasuredPlan, measured: Mapping[str, Any]) -> Miss | None:
    """Returns how the finished model misses the limit on latency, if its candidate kept it and nothing else was missed."""
    limit = budget.latency_limit()
    if limit is None or not taken.meets or taken.expected is None or len(measured["missed"]) != 1:
        return None
    before, after = (measured[side]["latency_ms"]["median"] for side in ("baseline", "compressed"))
    if limit.relative:
        after = before / measured["ratios"]["latency"]
    if after <= limit.of(before):
        return None
    return Miss(str(taken), taken.integer, taken.expected, after / before, limit.of(before) / before)


def choose_again(
    space: Workspace,
    problem: Problem,
    solution: Solution,
    measured: Mapping[str, Any],
    clock: Clock,
    say: Callable[[str], None],
) -> Literal["now", "with more time", "no"]:
    """Corrects the prices where the finished model missed the limit on latency that its candidate kept.

    After a kill in the midst of it, the same call measures the finished model again and corrects the same prices.

    Returns:
        Whether another candidate is to be chosen.
    """
    miss = missed_latency(problem.budget, solution.taken, measured)
    misses = misses_of(space)
    if miss is None or len(misses) + 1 >= ROUNDS:
        return "no"
    needed = sum(space.seconds.get(stage, 0.0) for stage in OF_A_ROUND) / (len(misses) + 1)
    in_time = needed < seconds_until(clock.end)
    target = find_target(problem.deployment.target)
    finished, kept = (
        target.files(folder / f"{name}{target.suffix}")
        for folder, name in ((space.out, "model"), (space.inner, stages.MISSED))
    )
    with atomic_paths(*kept) as temporaries:
        for file, temporary in zip(finished, temporaries, strict=True):
            shutil.copyfile(file, temporary)
    before = misses[:-1] if misses and misses[-1].candidate == miss.candidate else misses  # told before a kill
    write_json([vars(one) for one in (*before, miss)], space.inner / stages.MISSES)
    levels = by_level(corrected(solution.measured, solution.taken, miss.reached, problem))
    write_journal(space.inner / stages.CANDIDATES, levels.values())
    if not in_time:
        return "with more time"
    space.drop(stages.CHOICE)
    say(f"{miss}. Choosing again.")
    return "now"
