"""A total that is spread over places in proportion to shares, as whole numbers within each place's limits."""

import math
from collections.abc import Sequence


def spread(raw: Sequence[float], most: Sequence[int], total: int, least: int) -> list[int]:
    """Returns whole numbers that add up to `total` and are in proportion to `raw`, but for those at a limit.

    A place that would get more than it takes gets all it takes, and the others share the rest.

    Args:
        raw: what each place would get, but for a common factor; above 0.
        most: the most that each place takes.
        total: the sum, between those of `least` and of `most`.
        least: the least that each place gets.
    """
    full: set[int] = set()
    while True:
        open_ = [i for i in range(len(raw)) if i not in full]
        left = total - sum(most[i] for i in full)
        scale = left / sum(raw[i] for i in open_) if open_ else 0.0
        more = {i for i in open_ if raw[i] * scale >= most[i]}
        if not more:
            break
        full |= more
    exact = [float(one) if i in full else raw[i] * scale for i, one in enumerate(most)]
    return _whole_numbers(exact, total, least)


def _whole_numbers(exact: Sequence[float], total: int, least: int) -> list[int]:
    """Rounds numbers to whole ones of at least `least` that add up to `total`, by the largest-remainder method."""
    found = [max(least, math.floor(number)) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: found[i] - exact[i])
    for i in by_remainder[: max(total - sum(found), 0)]:
        found[i] += 1
    while sum(found) > total:  # ends: the total is at least the sum of what all get at least
        found[max(range(len(found)), key=lambda i: (found[i] > least, found[i] - exact[i]))] -= 1
    return found
