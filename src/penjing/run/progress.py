"""Where a run is, as data for whoever shows it: its stage, the time that is probably left, and the best plan so far."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from penjing.planning import MeasuredPlan, Problem, better
from penjing.run.clock import Clock
from penjing.run.estimate import Estimate

STAGES = ("capture", "profile", "choose", "prune", "recover", "quantise", "lower", "verify", "report")
"""All stages of `compress`, in order. Where a finished model misses the budget, those from "choose" on come again."""

# The part of the estimate that each stage belongs to: choosing, training or verifying. What comes before choosing is over soon.
_PARTS = dict(zip(STAGES, (0, 0, 0, 1, 1, 2, 2, 2, 2), strict=True))


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        stage: the stage that runs, one of `STAGES`.
        ends: the value of `time.monotonic()` at which the run will probably be over.
        after: seconds that the parts of the run behind this one will probably take: choosing, training and verifying are parts.
        best: the best of the plans that were measured so far; None where none was.
        step: how many steps of the training were made; 0 outside of it.
        steps: how many there are.
        loss: the loss of the last step.
    """

    stage: str
    ends: float
    after: float
    best: MeasuredPlan | None = None
    step: int = 0
    steps: int = 0
    loss: float = 0.0


class Course:
    """The course of one run: hears what happens, and tells a watcher where the run is."""

    def __init__(
        self,
        expected: Estimate,
        clock: Clock,
        watch: Callable[[Progress], None] | None,
        note: Callable[[str], None],
    ) -> None:
        """Takes how long the run was estimated to take, its limit, the watcher, and what notes a line about each stage."""
        self._clock, self._watch, self._note = clock, watch, note
        self._parts = [60 * minutes for minutes in expected.parts]  # seconds
        self._told = Progress(STAGES[0], time.monotonic() + sum(self._parts), sum(self._parts[1:]))
        self._began = (0, 0.0)  # the step with which the training began in this call, and when

    def began(self, stage: str) -> None:
        """Hears that a stage begins."""
        self._note(f"Stage: {stage}.")
        part, ends = _PARTS[stage], self._told.ends
        if part != _PARTS[self._told.stage]:  # within one part the time runs on; with each part it is estimated anew
            ends = self._limited(time.monotonic() + sum(self._parts[part:]))
        after = sum(self._parts[part + 1 :])
        self._tell(replace(self._told, stage=stage, ends=ends, after=after, step=0, steps=0))

    def chooses(self, problem: Problem, candidates: Iterable[MeasuredPlan]) -> None:
        """Hears that a plan will be chosen, with what was measured before, and counts as the prices are corrected now."""
        self._told = replace(self._told, best=None)
        for candidate in candidates:
            self.measured(problem, candidate)

    def measured(self, problem: Problem, candidate: MeasuredPlan) -> None:
        """Hears that a plan was measured."""
        best = candidate if self._told.best is None else better(problem, self._told.best, candidate)
        self._tell(replace(self._told, best=best))

    def trained(self, step: int, steps: int, loss: float) -> None:
        """Hears of a step of the training; the pace so far tells when it will end."""
        now = time.monotonic()
        if self._told.steps == 0:
            self._began = (step, now)
        first, since = self._began
        ends = self._told.ends
        if step > first:
            left = (now - since) / (step - first) * (steps - step)
            ends = self._limited(now + left + self._told.after)
        self._tell(replace(self._told, step=step, steps=steps, loss=loss, ends=ends))

    def _limited(self, ends: float) -> float:
        return ends if self._clock.end is None else min(ends, self._clock.end)

    def _tell(self, progress: Progress) -> None:
        self._told = progress
        if self._watch is not None:
            self._watch(progress)
