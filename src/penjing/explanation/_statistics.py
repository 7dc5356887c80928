"""Intervals and tests for shares of samples, and for the change of a share where both networks saw the same samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95  # of all intervals: the true value lies outside of one in twenty
CHANCE = 0.05  # what chance alone makes less often than this is more than chance
NORMAL = float(stats.norm.ppf(0.5 + LEVEL / 2))  # standard deviations on each side of the mean


@dataclass(frozen=True)
class Estimate:
    """A value that was measured on a sample of the world, and a 95 % interval for the value in the world.

    Attributes:
        value: as measured.
        low: the interval's lower end.
        high: the interval's upper end.
    """

    value: float
    low: float
    high: float


def share(hits: int, samples: int) -> Estimate:
    """Returns a share of independent samples, with the score interval (Wilson, 1927).

    Args:
        hits: samples that have the property.
        samples: all of them, at least one.
    """
    interval = stats.binomtest(hits, samples).proportion_ci(LEVEL, method="wilson")
    return Estimate(hits / samples, float(interval.low), float(interval.high))


def change(lost: int, gained: int, samples: int) -> Estimate:
    """Returns by how much a share changed between two looks at the same samples.

    The interval is that of Bonett and Price (2012), Wald's with one sample added to each kind, which keeps its level for
    few samples too (Fagerland et al., 2014).

    Args:
        lost: samples that had the property before and don't have it after.
        gained: samples that have it only after.
        samples: all samples, at least one.
    """
    more, less = (gained + 1) / (samples + 2), (lost + 1) / (samples + 2)
    half = NORMAL * math.sqrt((more + less - (more - less) ** 2) / (samples + 2))
    value = (gained - lost) / samples
    # The interval lies about a value that is drawn to 0; it always holds the measured one.
    return Estimate(value, max(-1.0, min(value, more - less - half)), min(1.0, max(value, more - less + half)))


def by_chance(lost: int, gained: int) -> float:
    """Returns how likely chance alone gives so uneven numbers of lost and gained samples (McNemar's exact test, 1947)."""
    return 1.0 if lost + gained == 0 else float(stats.binomtest(lost, lost + gained).pvalue)


def clearly(chances: Sequence[float]) -> list[bool]:
    """Tells which of several tests hold together: of those that do, one in twenty is false (Benjamini and Hochberg, 1995)."""
    if not chances:
        return []
    return [bool(one < CHANCE) for one in stats.false_discovery_control(np.asarray(chances))]
