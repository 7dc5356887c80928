"""Picks one option for every place where options cost together what neither costs alone: a multiple choice with joint costs.

A convolution's time depends on the channels that stay on both of its sides and on the numbers that it computes in. So costs
aren't sums over places: they are sums over small tables, each of which has an axis per place. Such a problem is solved exactly
as an integer program (HiGHS: Huangfu & Hall 2018, Parallelizing the dual revised simplex method).
"""

import ctypes
import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from penjing.errors import PenjingError

DAMAGE = "damage"
SECONDS = 30.0  # for one solution
GAP = 1e-4  # share of the best possible damage within which a solution counts as the best

# HiGHS takes a solution for the best within 1e-6 of the objective, and for feasible within 1e-6 of a limit. The objective is
# scaled so that the first tolerance is too small to matter. For the second, limits are tightened by as much as a solution passes
# them, and the problem is solved again.
SCALE = 1e6  # the largest entry of the objective, as HiGHS sees it
ROUNDS = 60  # times at most that the problem is solved under tightened limits


@dataclass(frozen=True, eq=False)
class Joint:
    """What the options that are taken at a few places cost together.

    Attributes:
        places: names of the places; each once. Without any, the amounts are summed in any case.
        amounts: by the name of what is summed ("damage", "ms", "bytes", …), an array with one axis per place, in the same
            order, whose entries belong to the place's options.
    """

    places: tuple[str, ...]
    amounts: Mapping[str, np.ndarray]


Taken = tuple[str, int]
"""A place and the number of an option there."""
Taking = Mapping[str, int]
"""The number of the option that is taken at each place, by the place's name."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """The problem: how many options each place has, and what they cost.

    Attributes:
        options: the number of options of each place, at least one.
        joints: the tables whose entries are summed.
        implied: pairs of which the second is taken wherever the first is.
        constants: what is summed in any case.
    """

    options: Mapping[str, int]
    joints: Sequence[Joint]
    implied: Sequence[tuple[Taken, Taken]] = ()
    constants: Mapping[str, float] = field(default_factory=dict)

    def total(self, name: str, taken: Mapping[str, int]) -> float:
        """Returns the sum of an amount for the options that are taken."""
        return self.constants.get(name, 0.0) + math.fsum(
            float(joint.amounts[name][tuple(taken[place] for place in joint.places)])
            for joint in self.joints
            if name in joint.amounts
        )

    def allows(self, taken: Mapping[str, int]) -> bool:
        """Tells whether the options that are taken keep all implications."""
        return all(taken[then[0]] == then[1] for given, then in self.implied if taken[given[0]] == given[1])


@dataclass(frozen=True)
class Assigned:
    """A solution.

    Attributes:
        taken: the number of the option at each place.
        totals: the sum of each amount, by name.
        gap: how much less the best possible solution could be, at most, as a share of this solution's objective: proven.
    """

    taken: Mapping[str, int]
    totals: Mapping[str, float]
    gap: float


class Unreachable(PenjingError):
    """No choice of options keeps the limits.

    Attributes:
        least: the least possible sum of each limited amount, each alone.
    """

    def __init__(self, message: str, least: Mapping[str, float]) -> None:
        """Takes the message and the least possible sums."""
        super().__init__(message)
        self.least = least


def assign(
    problem: Assignment,
    limits: Mapping[str, float],
    minimise: str = DAMAGE,
    *,
    seconds: float = SECONDS,
    gap: float = GAP,
) -> Assigned:
    """Picks one option for each place, so that one sum is least and others keep their limits.

    Each table with several axes gets a variable per entry, whose sums along all other axes are the variables of its places'
    options (the local marginal polytope: Wainwright & Jordan 2008, Graphical Models, Exponential Families, and Variational
    Inference). Where the options are 0 or 1, this is exact.

    Args:
        problem: the places, their options and what they cost.
        limits: the largest allowed sums, by name.
        minimise: the name of the sum that should be least.
        seconds: time after which the best choice so far is taken; its gap says how good it is at least.
        gap: share of the objective within which a choice counts as the best.

    Raises:
        Unreachable: no choice keeps the limits; the error holds the least possible sums.
        PenjingError: time ran out before any choice was found.

    Example:
        >>> times = Joint(("a", "b"), {"ms": np.array([[4.0, 3.0], [3.0, 1.0]])})
        >>> harm = [Joint((place,), {"damage": np.array([0.0, 1.0])}) for place in "ab"]
        >>> assign(Assignment({"a": 2, "b": 2}, [times, *harm]), {"ms": 3.0}).totals["damage"]
        1.0
    """
    if not problem.options:
        return _kept(problem, {}, minimise, limits, 0.0)
    tightened, factor = dict(limits), 1.0
    for _ in range(ROUNDS):
        solved = _solved(problem, tightened, minimise, seconds, gap)
        if solved is None:
            break
        passed = {name: problem.total(name, solved[0]) - limit for name, limit in limits.items()}
        if all(excess <= 0 for excess in passed.values()):
            return _kept(problem, solved[0], minimise, limits, solved[1])
        tightened = {name: tightened[name] - factor * max(0.0, passed[name]) for name in limits}
        factor *= 2
    least: dict[str, float] = {}
    for name in limits:
        solved = _solved(problem, {}, name, seconds, 0.0)
        assert solved is not None  # without limits there is always a choice
        least[name] = problem.total(name, solved[0])
        # Tightened limits may exclude the choice with the least of one sum, which may be the only one that keeps them all.
        if all(problem.total(other, solved[0]) <= limit for other, limit in limits.items()):
            return _kept(problem, solved[0], minimise, limits, math.inf)
    raise _unreachable(least, limits)


def _kept(
    problem: Assignment, taken: Mapping[str, int], minimise: str, limits: Mapping[str, float], gap: float
) -> Assigned:
    """Returns the solution, with its sums.

    Raises:
        Unreachable: it passes a limit: there was nothing to choose.
    """
    totals = {name: problem.total(name, taken) for name in (minimise, *limits)}
    if any(totals[name] > limit for name, limit in limits.items()):
        raise _unreachable({name: totals[name] for name in limits}, limits)
    return Assigned(dict(taken), totals, gap)


def _unreachable(least: Mapping[str, float], limits: Mapping[str, float]) -> Unreachable:
    words = ", ".join(f"{least[name]:.6g} {name} of {limit:.6g}" for name, limit in limits.items())
    together = " together" if all(least[name] <= limit for name, limit in limits.items()) else ""
    return Unreachable(f"No choice keeps the limits{together}; the least possible: {words}.", least)


def _solved(
    problem: Assignment, limits: Mapping[str, float], minimise: str, seconds: float, gap: float
) -> tuple[dict[str, int], float] | None:
    """Returns the best choice under these limits, with its proven gap; None if no choice keeps them."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes as long to import as everything else together
    from scipy.sparse import coo_array

    first = dict(zip(problem.options, itertools.accumulate(problem.options.values(), initial=0), strict=False))
    integers = sum(problem.options.values())
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    factors: list[np.ndarray] = []
    lower: list[float] = []
    upper: list[float] = []

    def constrain(at: np.ndarray, by: np.ndarray, least: float, most: float) -> None:
        rows.append(np.full(len(at), len(lower)))
        columns.append(at)
        factors.append(by)
        lower.append(least)
        upper.append(most)

    for place, count in problem.options.items():
        constrain(first[place] + np.arange(count), np.ones(count), 1, 1)
    for (place, option), (then, implied) in problem.implied:
        constrain(np.array([first[place] + option, first[then] + implied]), np.array([1.0, -1.0]), -np.inf, 0)
    amounts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in {minimise, *limits}}
    fixed = {name: problem.constants.get(name, 0.0) for name in amounts}
    variables = integers
    for joint in problem.joints:
        used = [name for name in amounts if name in joint.amounts]
        if not used:
            continue
        if not joint.places:  # nothing changes what these cost
            fixed |= {name: fixed[name] + float(joint.amounts[name]) for name in used}
            continue
        shape = tuple(problem.options[place] for place in joint.places)
        start = first[joint.places[0]] if len(shape) == 1 else variables
        at: np.ndarray = start + np.arange(math.prod(shape)).reshape(shape)
        if len(shape) > 1:
            variables += at.size
            for axis, place in enumerate(joint.places):
                for option in range(shape[axis]):
                    entries = at.take(option, axis).ravel()
                    constrain(np.append(entries, first[place] + option), np.append(np.ones(len(entries)), -1.0), 0, 0)
        for name in used:
            amounts[name].append((at.ravel(), np.asarray(joint.amounts[name], dtype=float).ravel()))
    dense = {name: np.zeros(variables) for name in amounts}
    for name, parts in amounts.items():
        for at, values in parts:
            np.add.at(dense[name], at, values)
    for name, limit in limits.items():
        unit = float(np.abs(dense[name]).max()) or 1.0
        limited = np.flatnonzero(dense[name])
        constrain(limited, dense[name][limited] / unit, -np.inf, (limit - fixed[name]) / unit)
    matrix = coo_array(
        (np.concatenate(factors), (np.concatenate(rows), np.concatenate(columns))), shape=(len(lower), variables)
    ).tocsr()
    objective = dense[minimise]
    with _quiet():
        result = milp(
            objective * (SCALE / (float(np.abs(objective).max()) or 1.0)),
            constraints=LinearConstraint(matrix, np.array(lower), np.array(upper)),
            integrality=np.concatenate([np.ones(integers), np.zeros(variables - integers)]),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": gap, "time_limit": seconds},
        )
    if result.status == 2:
        return None
    if result.x is None:
        raise PenjingError(
            f"The integer program found no choice within {seconds:.0f} s ({result.message}). Exclude layers, name fewer "
            "techniques, or take another solver."
        )
    taken = {
        place: int(np.argmax(result.x[first[place] : first[place] + count])) for place, count in problem.options.items()
    }
    return taken, float(result.mip_gap or 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops what HiGHS prints past Python and its own switch: a command may print JSON on standard output."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # there is no standard output
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        _flush_c()
        os.dup2(kept, 1)
        os.close(kept)


def _flush_c() -> None:
    """Empties the buffers of C's standard output, which would be printed later otherwise."""
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    library.fflush(None)
