"""Moves any choice of options onto the limits: what a search proposes is seldom one that a budget allows.

A search that proposes options place by place hits a tight budget by chance only, since the sums of sixty places lie far from it.
So each proposal is moved to the nearest choice that keeps the limits, as searches for knapsacks do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penjing.planning.assignment import DAMAGE, Assignment, Joint, Taking
from penjing.planning.rivals import changed

LITTLE = 1e-12  # share of a limit that a step uses at least, so that free steps come first and none divides by zero
SAFE = 1e-9  # share by which limits are kept: sums over many tables differ in their last digits by the order of adding


class Repair:
    """The operator that repairs choices.

    Its two phases are those of Chu & Beasley, A Genetic Algorithm for the Multidimensional Knapsack Problem, 1998. DROP: as long
    as a limit is passed, the change is made that does the least damage for what it takes off the excess. ADD: as long as a change
    lessens the damage within the limits, the one is made that saves the most for what it uses. Here the damage is that of each
    option alone, and gains, which depend on what is taken beside, aren't sorted once but counted anew for each change.

    A change is one place's other option, with all that goes with it.
    """

    def __init__(self, problem: Assignment, limits: Mapping[str, float]) -> None:
        """Takes the problem, and the largest allowed sums by name."""
        self._problem, self._names = problem, [DAMAGE, *limits]
        self._tables = [
            (joint.places, stacked)
            for joint in problem.joints
            if (stacked := _stacked(joint, self._names)).any() and joint.places
        ]
        self._at: dict[str, list[tuple[int, int]]] = {place: [] for place in problem.options}
        for number, (places, _) in enumerate(self._tables):
            for axis, place in enumerate(places):
                self._at[place].append((number, axis))
        self._limits = np.array([limit * (1 - SAFE) if limit > 0 else limit for limit in limits.values()])
        whole = dict.fromkeys(problem.options, 0)
        totals = np.array([problem.total(name, whole) for name in limits])
        self._scales = np.where(totals > 0, totals, 1.0)
        self._shares = np.where(self._limits > 0, self._limits, 1.0)
        self._tied = _tied(problem)
        self._near = self._depending()

    def excess(self, taken: Taking) -> float:
        """Returns how far a choice passes all limits together, each as a share of the unchanged network's costs."""
        return float(self._excess(self._totals(taken)))

    def __call__(self, taken: Taking) -> dict[str, int]:
        """Returns a choice that keeps the limits; where no single change comes nearer to them, the last one that was reached."""
        now, totals = dict(taken), self._totals(taken)
        known: dict[str, tuple[list[Mapping[str, int]], np.ndarray]] = {}
        while True:
            for place in now:
                if place not in known:
                    known[place] = self._changes(now, place)
            gains = np.concatenate([gain for _, gain in known.values()], axis=1)
            number = self._best(totals, gains)
            if number is None:
                return now
            totals = totals + gains[:, number]
            step = [one for some, _ in known.values() for one in some][number]
            now |= step
            for place in {other for one in step for other in self._near[one]}:
                known.pop(place, None)

    def _best(self, totals: np.ndarray, gains: np.ndarray) -> int | None:
        """Returns the number of the next change; None where none is left to make."""
        before, after = self._excess(totals), self._excess(totals[:, None] + gains)
        if before > 0:
            saved = before - after
            if not (saved > LITTLE).any():
                return None
            return int(np.argmin(np.where(saved > LITTLE, gains[0] / np.maximum(saved, LITTLE), np.inf)))
        worth = (gains[0] < -LITTLE) & (after <= 0)
        if not worth.any():
            return None
        used = np.maximum((gains[1:] / self._shares[:, None]).sum(0), LITTLE)
        return int(np.argmax(np.where(worth, -gains[0] / used, -np.inf)))

    def _excess(self, totals: np.ndarray) -> np.ndarray:
        """Returns the excess of sums, whose first axis is the amounts; the damage, which comes first, has no limit."""
        over = totals[1:].T - self._limits
        return np.asarray((np.maximum(0.0, over) / self._scales).sum(-1))

    def _totals(self, taken: Taking) -> np.ndarray:
        return np.array([self._problem.total(name, taken) for name in self._names])

    def _changes(self, now: Taking, place: str) -> tuple[list[Mapping[str, int]], np.ndarray]:
        """Returns all changes at a place: what each takes, and what it adds to the sums (amounts, changes)."""
        alone = self._along(now, place)
        steps: list[Mapping[str, int]] = []
        gains: list[np.ndarray] = []
        for option in range(self._problem.options[place]):
            if option == now[place]:
                continue
            if place not in self._tied:
                steps.append({place: option})
                gains.append(alone[:, option] - alone[:, now[place]])
                continue
            moved = changed(self._problem, now, (place, option))
            if moved is not None:
                steps.append({one: number for one, number in moved.items() if number != now[one]})
                gains.append(self._sums(moved, steps[-1]) - self._sums(now, steps[-1]))
        return steps, np.array(gains).reshape(-1, len(self._names)).T

    def _along(self, now: Taking, place: str) -> np.ndarray:
        """Returns the sums over a place's tables by its options (amounts, options), with all other places as they are."""
        found = np.zeros((len(self._names), self._problem.options[place]))
        for number, axis in self._at[place]:
            places, table = self._tables[number]
            at: list[Any] = [slice(None), *(now[one] for one in places)]
            at[axis + 1] = slice(None)
            found += table[tuple(at)]
        return found

    def _sums(self, taken: Taking, places: Mapping[str, int]) -> np.ndarray:
        """Returns the sums over all tables that any of these places is part of."""
        found = np.zeros(len(self._names))
        for number in sorted({number for place in places for number, _ in self._at[place]}):
            names, table = self._tables[number]
            at: list[Any] = [slice(None), *(taken[one] for one in names)]
            found += table[tuple(at)]
        return found

    def _depending(self) -> dict[str, set[str]]:
        """Returns, by place, the places at which changes gain something else once this one takes another option."""
        found: dict[str, set[str]] = {place: {place} for place in self._problem.options}
        for place in self._problem.options:
            group = self._tied.get(place, {place})
            touched = {one for member in group for number, _ in self._at[member] for one in self._tables[number][0]}
            for one in touched | group:
                found[one].add(place)
        return found


def _stacked(joint: Joint, names: Sequence[str]) -> np.ndarray:
    """Returns a table with one more axis in front, the amounts."""
    shape = next(iter(joint.amounts.values())).shape if joint.amounts else ()
    return np.stack([np.asarray(joint.amounts.get(name, np.zeros(shape)), dtype=float) for name in names])


def _tied(problem: Assignment) -> dict[str, set[str]]:
    """Returns, for each place that implies or is implied, all places that a change there may reach."""
    found: dict[str, set[str]] = {}
    for (given, _), (then, _) in problem.implied:
        together = found.get(given, {given}) | found.get(then, {then})
        for place in together:
            found[place] = together
    return found
