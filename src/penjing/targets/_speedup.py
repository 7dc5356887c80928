"""How many times faster one model is than another, from times that were measured in turns, with an interval."""

import statistics
from dataclasses import dataclass

from scipy.stats import binom

from penjing.targets._records import Latency

CONFIDENCE = 0.95
# Largest ratio of the median to the fastest hundredth of a model's calls on a machine that does little else. Beside other work,
# medians grow, and not by the same factor for both models: longer calls are interrupted more often. Where processes outnumber the
# cores, the fastest tenth grows too; the fastest hundredth was the same within 3 % whatever else ran.
CALM = 1.3
# Largest ratio between the ratio of the medians and that of the fastest hundredths, on such a machine: without other work it is
# 1.01. Work that delays one of the models alone moves them apart, though its calls may look calm: by 20 % once, with medians
# of 1.2 times the fastest hundredth.
ALIKE = 1.05


@dataclass(frozen=True)
class Speedup:
    """How many times faster a model is than another one.

    Attributes:
        value: the ratio of the latencies: of the medians on a calm machine; beside other work that of the fastest hundredths,
            which other work disturbs least.
        low: lower end of the interval.
        high: upper end of the interval, which holds the ratio with at least 95 % confidence: that of the median of the ratios
            in successive parts of the measurement (order statistics, free of assumptions on the distribution), widened to
            `value` where the machine wasn't calm. With fewer than six parts, since there were fewer than six calls of a
            model, it reaches from the smallest to the largest ratio, which holds the ratio less often: three times in four
            with three parts.
        calm: whether the machine did little else meanwhile: medians are close to the fastest hundredths, and so are their ratios.
        disturbed: ratio of the median to the fastest hundredth of the calls, of the model where it is larger.
    """

    value: float
    low: float
    high: float
    calm: bool
    disturbed: float

    @property
    def is_gain(self) -> bool:
        """Whether the whole interval lies above 1."""
        return self.low > 1


def speedup(before: Latency, after: Latency) -> Speedup:
    """Returns how many times faster `after` is than `before`; both must come from one call of `measure_together`."""
    value = before.median / after.median
    low = high = value
    if before.parts and len(before.parts) == len(after.parts):
        ratios = sorted(b / a for b, a in zip(before.parts, after.parts, strict=True))
        value = statistics.median(ratios)
        end = max(int(binom.ppf((1 - CONFIDENCE) / 2, len(ratios), 0.5)) - 1, 0)
        low, high = ratios[end], ratios[-1 - end]
    disturbed = max(side.median / side.undisturbed for side in (before, after))
    fastest = before.undisturbed / after.undisturbed
    calm = disturbed <= CALM and 1 / ALIKE <= value / fastest <= ALIKE
    if not calm:
        value = fastest
    return Speedup(value, min(low, value), max(high, value), calm, disturbed)
