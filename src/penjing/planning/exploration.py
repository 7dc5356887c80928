"""What a search that looks at whole choices is given: costs that are sums, limits, and a damage that is evaluated one by one."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from penjing.planning.assignment import DAMAGE, Assignment, Taking
from penjing.planning.joint_costs import UNKNOWN
from penjing.planning.repair import Repair
from penjing.planning.rivals import changed

EVALUATIONS = 200  # choices whose damage is evaluated
WHOLE = 0  # the number of the option that leaves a place as it is


@dataclass(frozen=True, eq=False)
class Exploration:
    """A problem for searches that propose choices: they repair each of them, and learn its damage.

    Attributes:
        problem: the places, their options and what they cost.
        limits: the largest allowed sums, by name.
        damage: returns the damage of a choice; by default, the sum of what its options do alone.
        evaluations: how many different choices may be evaluated.
        seed: seed of the proposals.
        starts: choices that are proposed first, such as the unchanged network, or the best of an earlier exploration.
        network: name of the network, for messages.
        storage: the file in which trials are kept across a kill, by searches that can go on from one; None keeps nothing.
        over: tells whether time is over.
    """

    problem: Assignment
    limits: Mapping[str, float]
    damage: Callable[[Taking], float] | None = None
    evaluations: int = EVALUATIONS
    seed: int = 0
    starts: tuple[Taking, ...] = ()
    network: str = "the network"
    storage: Path | None = None
    over: Callable[[], bool] = field(default=lambda: False)

    @cached_property
    def repair(self) -> Repair:
        """Moves choices onto the limits."""
        return Repair(self.problem, self.limits)

    def used(self, taken: Taking) -> float:
        """Returns the largest share of a limit that a choice uses."""
        shares = (self.problem.total(name, taken) / limit for name, limit in self.limits.items() if limit > 0)
        return max(shares, default=0.0)

    @cached_property
    def open(self) -> dict[str, list[int]]:
        """The options that may be proposed at each place, the mildest first: those whose damage and costs are known."""
        found = {}
        for place, count in self.problem.options.items():
            unknown, damage = np.zeros(count), np.zeros(count)
            for joint in self.problem.joints:
                if joint.places == (place,):
                    unknown += joint.amounts.get(UNKNOWN, 0.0)
                    damage += joint.amounts.get(DAMAGE, 0.0)
            known = [option for option in range(count) if not unknown[option]]
            found[place] = sorted(known, key=lambda option: (option != WHOLE, damage[option], option))
        return found

    def chosen(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """Returns the choice that takes, at each place, the option of a number in `open`, with what goes with it."""
        taken = dict.fromkeys(self.problem.options, WHOLE)
        for place, number in numbers.items():
            taken = with_all(self.problem, taken, place, self.open[place][number])
        return taken

    def number(self, place: str, option: int) -> int:
        """Returns the number in `open` of an option; that of the unchanged place where the option may not be proposed."""
        some = self.open[place]
        return some.index(option) if option in some else 0

    @cached_property
    def identity(self) -> str:
        """A hash of the places and their options; that of another network, or of other options, differs."""
        return _hash([sorted(self.problem.options.items()), sorted(map(list, self.problem.implied))])

    @cached_property
    def version(self) -> str:
        """A hash of everything on which the search depends, prices and limits included."""
        tables = [
            [joint.places, {name: values.tolist() for name, values in joint.amounts.items()}]
            for joint in self.problem.joints
        ]
        starts = [sorted(one.items()) for one in self.starts]
        return _hash([self.identity, tables, dict(self.problem.constants), dict(self.limits), self.seed, starts])


@dataclass(frozen=True)
class Evaluated:
    """A choice that was evaluated.

    Attributes:
        taken: the choice.
        damage: its damage.
        excess: how far it passes the limits; 0 where it keeps them.
    """

    taken: Taking
    damage: float
    excess: float

    @property
    def rank(self) -> tuple[float, float]:
        """What is less for the better of two: the excess, then the damage."""
        return (self.excess, self.damage)


class Evaluations:
    """The choices that one exploration evaluated, each once; what is proposed is repaired first."""

    def __init__(self, asked: Exploration) -> None:
        """Begins with none."""
        self._asked = asked
        self.all: dict[tuple[int, ...], Evaluated] = {}

    @property
    def ended(self) -> bool:
        """Whether no more choices may be evaluated; one may be in any case."""
        return bool(self.all) and (len(self.all) >= self._asked.evaluations or self._asked.over())

    def of(self, proposed: Taking) -> Evaluated:
        """Repairs a choice, and returns it with its damage."""
        asked = self._asked
        taken = asked.repair(proposed)
        key = self._key(taken)
        if key not in self.all:
            damage = asked.problem.total(DAMAGE, taken) if asked.damage is None else asked.damage(taken)
            self.all[key] = Evaluated(taken, damage, asked.repair.excess(taken))
        return self.all[key]

    def note(self, one: Evaluated) -> None:
        """Takes a choice that was evaluated in an earlier call."""
        self.all[self._key(one.taken)] = one

    def _key(self, taken: Taking) -> tuple[int, ...]:
        return tuple(taken[place] for place in self._asked.problem.options)

    def best(self) -> Evaluated:
        """Returns the best so far, of equal ones the first."""
        return min(self.all.values(), key=lambda one: one.rank)


Explorer = Callable[[Exploration], Evaluations]
"""A search: it proposes choices until the evaluations are used up."""


def with_all(problem: Assignment, taken: Taking, place: str, option: int) -> dict[str, int]:
    """Returns a choice with another option at one place, and what goes with it; the same where the others exclude it."""
    return dict(taken) if taken[place] == option else changed(problem, taken, (place, option)) or dict(taken)


def finite(one: Evaluated) -> float:
    """Returns the damage of a choice as libraries take it; that of one which passes the limits is the largest number."""
    return one.damage if math.isfinite(one.damage) and one.excess <= 0 else float(np.finfo(np.float32).max)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
