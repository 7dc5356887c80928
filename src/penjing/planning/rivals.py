"""Says why a plan is as it is: what was taken at each place, and which other option there came nearest to being taken.

What an option costs depends on what is taken elsewhere, so options are compared as changes of the whole choice: one place takes
another option, all other places keep theirs, but for those that go with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.planning.assignment import DAMAGE, Assignment, Joint, Taken, Taking
from penjing.planning.joint_costs import UNKNOWN, Choice
from penjing.planning.place_choice import PlaceChoice, PricedOption

WHOLE = 0  # the number of the option that leaves a place as it is
COUNTED = ("macs", "layers", "energy")  # amounts that are called as the limits on them, and that add up over places


# Rivals, by number


@dataclass(frozen=True)
class Rival:
    """The rival of what was taken at a place.

    Attributes:
        option: the number of the rival; None where nothing else can be taken.
        taken: the sum of each amount for what was taken, by name, over the tables that tell the two apart. Without a rival,
            over the tables of the place.
        instead: the same sums for the rival.
    """

    option: int | None
    taken: Mapping[str, float]
    instead: Mapping[str, float]


def rivals(problem: Assignment, taken: Taking, limits: Mapping[str, float]) -> dict[str, Rival]:
    """Finds the rival of what was taken at each place.

    The rival is the other option with the least damage + price × cost. The cost is the amount that binds: the one that uses the
    largest share of its limit. The price of a unit of it follows from the choice itself: of the single changes that the limit
    forbids, the most damage that one saves per unit that it costs more. At that price no such change is worth its cost, and the
    best of them is on a par with what was taken. Where nothing is limited, or more of the amount that binds would save nothing,
    the price is 0.

    Options of which something isn't known are no rivals, since they couldn't be taken. Options that pass a limit are: that is
    why they weren't taken.

    Args:
        problem: the places, their options and what they cost.
        taken: the number of the option at each place, which keeps all implications.
        limits: the largest allowed sums, by name.

    Returns:
        The rivals by place, in the order of the problem's places.
    """
    tables: dict[str, list[Joint]] = {place: [] for place in problem.options}
    for joint in problem.joints:
        for place in joint.places:
            tables[place].append(joint)
    at = {id(joint): index for index, joint in enumerate(problem.joints)}
    names = sorted({name for joint in problem.joints for name in joint.amounts})

    def sums(of: Taking, places: Sequence[str]) -> dict[str, float]:
        touched = sorted({at[id(joint)] for place in places for joint in tables[place]})
        part = Assignment(problem.options, [problem.joints[index] for index in touched])
        return {name: part.total(name, of) for name in names}

    changes: dict[str, dict[int, tuple[dict[str, float], dict[str, float]]]] = {}
    for place, count in problem.options.items():
        changes[place] = {}
        for option in range(count):
            moved = None if option == taken[place] else changed(problem, taken, (place, option))
            if moved is None:
                continue
            differ = [one for one in moved if moved[one] != taken[one]]
            before, after = sums(taken, differ), sums(moved, differ)
            if after.get(UNKNOWN, 0.0) <= before.get(UNKNOWN, 0.0):
                changes[place][option] = before, after
    bound = binding(problem, taken, limits)
    differences = {
        place: {
            option: (_grown(DAMAGE, *sides), 0.0 if bound is None else _grown(bound, *sides))
            for option, sides in some.items()
        }
        for place, some in changes.items()
    }
    spare = 0.0 if bound is None else limits[bound] - problem.total(bound, taken)
    price = _price((pair for some in differences.values() for pair in some.values()), spare)
    found = {}
    for place, some in differences.items():
        nearest = min(some, key=lambda option: some[option][0] + price * some[option][1], default=None)
        before, after = (sums(taken, [place]), {}) if nearest is None else changes[place][nearest]
        found[place] = Rival(nearest, before, after)
    return found


def changed(problem: Assignment, taken: Taking, change: Taken) -> dict[str, int] | None:
    """Returns a choice in which one place takes another option, with as few other changes as the implications ask for.

    What goes with the new option is taken too. A place whose option would bring the old one back is left as it is.

    Returns:
        The number of the option at each place; None where no such choice keeps all implications.
    """
    moved, settled = {**taken, change[0]: change[1]}, {change[0]}
    while True:
        broken = next((pair for pair in problem.implied if _breaks(moved, pair)), None)
        if broken is None:
            return moved
        (given, option), (then, implied) = broken
        if then not in settled:
            moved[then] = implied
            settled.add(then)
        elif given not in settled and option != WHOLE:
            moved[given] = WHOLE
            settled.add(given)
        else:
            return None


def binding(problem: Assignment, taken: Taking, limits: Mapping[str, float]) -> str | None:
    """Returns the name of the amount that uses the largest share of its limit; None where nothing can be paid for."""
    shares = {name: problem.total(name, taken) / limit for name, limit in limits.items() if limit > 0}
    return max(shares, key=lambda name: shares[name], default=None)


def _breaks(taken: Taking, pair: tuple[Taken, Taken]) -> bool:
    (given, option), (then, implied) = pair
    return taken[given] == option and taken[then] != implied


def _grown(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)


def _price(differences: Iterable[tuple[float, float]], spare: float) -> float:
    """Returns the most damage saved per unit of cost, among changes that cost more than is left.

    Args:
        differences: the damage and the cost that each change adds.
        spare: how much of the limit is left.
    """
    return max((-damage / cost for damage, cost in differences if damage < 0 and cost > max(0.0, spare)), default=0.0)


# Rivals, as options


def place_choices(
    choices: Mapping[str, Choice],
    problem: Assignment,
    taken: Taking,
    limits: Mapping[str, float],
    factor: float,
) -> tuple[PlaceChoice, ...]:
    """Returns what was taken at each place, with its rival.

    Args:
        choices: the options at each place, by the place's name in the problem.
        problem: the problem with what the options cost, in "ms" and "bytes".
        taken: the number of the option at each place.
        limits: the limits of the problem.
        factor: from the problem's milliseconds to shares of the original's latency.
    """

    def priced(choice: Choice, number: int, amounts: Mapping[str, Any]) -> PricedOption:
        ms, size, damage = (float(amounts.get(name, 0.0)) for name in ("ms", "bytes", DAMAGE))
        goes_with = choice.inside if number >= len(choice.options) else ""
        latency = factor * ms if "ms" in limits else None
        used = {name: float(amounts.get(name, 0.0)) / limits[name] for name in COUNTED if limits.get(name)}
        return PricedOption(choice.option(number), goes_with, latency, size, damage, used)

    return tuple(
        PlaceChoice(
            choices[name].place,
            priced(choices[name], taken[name], rival.taken),
            None if rival.option is None else priced(choices[name], rival.option, rival.instead),
        )
        for name, rival in rivals(problem, taken, limits).items()
    )
