"""The problem that a solver is given, and the solution that it returns."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from penjing import records
from penjing.budget import LIMITED, Budget, Limit
from penjing.capabilities import DEFAULT, Capabilities, find
from penjing.errors import PenjingError
from penjing.graph import Graph, Plan
from penjing.graph.places import Json
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.place_choice import PlaceChoice
from penjing.targets import Artifact, find_target
from penjing.techniques import Scope, Technique

MARGIN = 0.95  # a candidate must keep 95 % of a latency, so that the finished model keeps it on a noisy machine too
SIZE_MARGIN = 0.99  # training changes a file's size by little: biases and scales may take other places


@dataclass(frozen=True)
class Deployment:
    """Where and how the result runs.

    Attributes:
        target: name of the runtime.
        threads: threads within an op.
        batch: samples per call.
    """

    target: str = DEFAULT
    threads: int = 1
    batch: int = 1


@dataclass(frozen=True)
class Held:
    """A metric that must not fall below a bound.

    Attributes:
        metric: a function from a graph to its metric; higher is better.
        least: the bound.
    """

    metric: Callable[[Graph], float]
    least: float


@dataclass(frozen=True)
class Anchor:
    """A finished model whose latency is known, beside which further candidates are measured.

    A shared machine has phases in which integers gain less over floating point than in others. How much faster than the
    anchor a candidate is, depends less on the phase than how much faster than the original it is.

    Attributes:
        file: the finished model's lowered file.
        latency: its median latency over that of the original, as measured when it was verified.
        integer: whether it computes in integers.
    """

    file: Artifact
    latency: float
    integer: bool


@dataclass(frozen=True)
class Problem:
    """A graph that should keep a budget, and the means to that end.

    Attributes:
        graph: the original.
        data: the data for evidence and ranges: a `Data`, or an iterable of calibration batches for techniques that take
            one.
        original: the original's lowered file; every candidate is measured side by side with it. None where nothing runs on
            a target: solvers that can do so count sizes then.
        budget: limits on what the model costs.
        deployment: where and how the result runs.
        techniques: the techniques that may propose options, by name, with their choices settled.
        scope: where the techniques may work.
        folder: the folder into which candidates are written; they are removed again.
        deadline: a value of `time.monotonic()`; no candidate is tried that would probably end behind it. The original is
            measured in any case.
        longest: seconds that a level took in an earlier call; other levels are expected to take as long.
        journal: a file that keeps measurements; a level that it holds already isn't measured again.
        say: called with a line about each candidate.
        measured: called with each candidate that was measured in this call.
        held: a metric that must hold, for solvers that judge candidates.
        start: a graph that was already made of the original, for solvers that start from one.
        anchor: an earlier solution's finished model, which missed the budget.
        record: the capabilities of a target that isn't in the table of capabilities.
        seed: seed of solvers that draw choices at random.
    """

    graph: Graph
    data: Any
    original: Artifact | None
    budget: Budget
    deployment: Deployment
    techniques: Mapping[str, Technique]
    scope: Scope
    folder: Path
    deadline: float | None = None
    longest: float = 0.0
    journal: Path | None = None
    say: Callable[[str], None] = field(default=lambda line: None)
    measured: Callable[[MeasuredPlan], None] = field(default=lambda candidate: None)
    held: Held | None = None
    start: Graph | None = None
    anchor: Anchor | None = None
    record: Capabilities | None = None
    seed: int = 0

    @property
    def capabilities(self) -> Capabilities:
        """What the target can do."""
        return self.record or find(self.deployment.target)

    @property
    def left(self) -> float:
        """Seconds until the deadline, infinite without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def file(self, name: str) -> Path:
        """Returns the path to which a candidate of that name is written."""
        return self.folder / f"{name}{find_target(self.deployment.target).suffix}"

    @cached_property
    def counted(self) -> dict[str, float]:
        """The original's costs that are counted in its graph, by the names of a budget's limits."""
        return self.graph.cost().by_limit

    def used(self, candidate: MeasuredPlan) -> dict[str, float]:
        """Returns which share of each limit a candidate uses, by the limit's name; see `Budget.used`."""
        assert self.original is not None
        before = {"latency": candidate.original_ms, "size": self.original.size_bytes}
        if any(LIMITED[name].counted for name in self.budget.limits()):
            before |= self.counted
        return self.budget.used(before, candidate.costs)

    def keeps(self, candidate: MeasuredPlan) -> bool:
        """Tells whether a candidate keeps the whole budget."""
        return all(share <= self.allowed(name) for name, share in self.used(candidate).items())

    @staticmethod
    def allowed(name: str) -> float:
        """Returns the share of a limit that a candidate may use: a part of it where that is measured, else all of it."""
        if LIMITED[name].counted:
            return 1.0
        return SIZE_MARGIN if name == "size" else MARGIN


@dataclass(frozen=True)
class Solution:
    """The candidate that a solver takes, and how it came to that.

    Attributes:
        taken: the candidate whose plan is to be carried out.
        measured: all candidates that were measured.
        complete: False if Ctrl-C came before the choice was made.
        short_of_time: whether time ran out before a plan was found that keeps the budget, with candidates left to measure.
        graph: the graph that results from the plan, where the solver made it; it isn't written to files.
        places: what was taken at each place, with the nearest rival, where the solver compares options place by place.
        unseen: options that weren't compared, since there was no time to measure what they do.
    """

    taken: MeasuredPlan
    measured: tuple[MeasuredPlan, ...]
    complete: bool = True
    short_of_time: bool = False
    graph: Graph | None = field(default=None, compare=False)
    places: tuple[PlaceChoice, ...] = ()
    unseen: int = 0

    @property
    def plan(self) -> Plan:
        """The plan that is to be carried out."""
        return self.taken.plan

    def to_json(self) -> dict[str, Json]:
        """Returns the solution as plain JSON."""
        return {
            "taken": self.taken.to_json(),
            "measured": [candidate.to_json() for candidate in self.measured],
            "complete": self.complete,
            "short_of_time": self.short_of_time,
            "places": [one.to_json() for one in self.places],
            "unseen": self.unseen,
        }

    @classmethod
    def from_json(cls, record: Json) -> "Solution":
        """Makes a solution from the JSON that `to_json` returned.

        Raises:
            PenjingError: the JSON isn't a solution's.
        """
        missing = (
            [] if not isinstance(record, dict) else [key for key in ("complete", "short_of_time") if key not in record]
        )
        if missing:  # their defaults are for solvers; a file that doesn't say so isn't taken for a finished choice
            raise PenjingError(f"'choice' has no '{missing[0]}'")
        return records.convert(record, cls, "choice")


def within(limit: Limit | None, value: float, original: float) -> bool:
    """Tells whether a latency keeps a limit, with the margin."""
    return limit is None or value <= MARGIN * limit.of(original)
