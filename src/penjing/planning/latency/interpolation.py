"""Latencies between measured ones: kernels that differ in their numbers of channels alone are a family."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import nnls

from penjing.planning.latency.kernels import Kernel
from penjing.planning.latency.resizing import PADS

Counts = tuple[int, int]
"""Numbers of channels that flow in and out."""

NEIGHBOURS = 4  # measured kernels whose deviation from the family's fit an unmeasured one takes on


def family_of(kernel: Kernel) -> Kernel:
    """Returns what kernels have in common that differ in their numbers of channels alone: a kernel of one channel."""
    common = kernel.resized(1, 1)
    if kernel.op in PADS:  # how many channels are added, and where, isn't what such an op's time depends on
        common = replace(common, arguments="")
    return replace(common, groups=0) if kernel.depthwise else common


def counts_of(kernel: Kernel) -> Counts:
    """Returns a kernel's numbers of channels; twice the same where one follows from the other."""
    return (kernel.outs, kernel.outs) if kernel.one_sided else (kernel.ins, kernel.outs)


class Family:
    """The measured kernels of a family, and what lies between them.

    A number of channels costs what the next measured number costs that isn't beyond the next multiple: a kernel that works
    on 16 channels at once is as slow with 41 as with 48. Between measured multiples, costs are bilinear in both numbers where
    all four neighbours are measured; elsewhere they follow a fit `a + b ins + c outs + d ins outs` without negative terms,
    times how much the nearest measured kernels deviate from that fit.
    """

    def __init__(self, points: Mapping[Counts, float], multiples: Sequence[int]) -> None:
        """Takes the microseconds by numbers of channels, of which there is one at least, and the target's multiples."""
        self._points = dict(points)
        self._step = max(multiples, default=1)
        self._ins = sorted({ins for ins, _ in points})
        self._outs = sorted({outs for _, outs in points})
        self._fit = _fitted(self._points)
        self._known: dict[Counts, float] = {}

    def at(self, counts: Counts) -> float:
        """Returns the microseconds at these numbers of channels."""
        found = self._known.get(counts)
        if found is None:
            found = self._known[counts] = self._between(
                _next(counts[0], self._ins, self._step), _next(counts[1], self._outs, self._step)
            )
        return found

    def _between(self, ins: int, outs: int) -> float:
        if (ins, outs) in self._points:
            return self._points[ins, outs]
        left, right = _around(ins, self._ins), _around(outs, self._outs)
        if left and right:
            corners = {(x, y): self._points.get((x, y)) for x in left for y in right}
            known = {place: us for place, us in corners.items() if us is not None}
            if len(known) == len(corners):
                across = _share(ins, left), _share(outs, right)
                low, high = (
                    known[x, right[0]] * (1 - across[1]) + known[x, right[1]] * across[1] for x in (left[0], left[1])
                )
                return low * (1 - across[0]) + high * across[0]
        return self._fitted_at(ins, outs)

    def _fitted_at(self, ins: int, outs: int) -> float:
        nearest = sorted(self._points, key=lambda place: _distance(place, (ins, outs)))[:NEIGHBOURS]
        weights = [1 / _distance(place, (ins, outs)) ** 2 for place in nearest]
        deviation = sum(
            w * self._points[place] / max(self._value(*place), 1e-9) for w, place in zip(weights, nearest, strict=True)
        )
        return self._value(ins, outs) * deviation / sum(weights)

    def _value(self, ins: int, outs: int) -> float:
        return float(_terms(ins, outs) @ self._fit)


def _terms(ins: int, outs: int) -> np.ndarray:
    return np.array([1.0, ins, outs, ins * outs])


def _fitted(points: Mapping[Counts, float]) -> np.ndarray:
    """Fits relative errors; a single kernel says nothing of what is constant, so that its cost counts as proportional."""
    if len(points) == 1:
        ((ins, outs), us) = next(iter(points.items()))
        return np.array([0.0, 0.0, 0.0, us / (ins * outs)])
    rows = np.array([_terms(*place) / max(us, 1e-3) for place, us in points.items()])
    scale = rows.max(axis=0)
    return np.asarray(nnls(rows / scale, np.ones(len(rows)))[0] / scale)


def _next(count: int, measured: Sequence[int], step: int) -> int:
    """Returns the next measured number up to the next multiple, or that multiple."""
    top = math.ceil(count / step) * step
    place = bisect_left(measured, count)
    return measured[place] if place < len(measured) and measured[place] <= top else top


def _around(count: int, measured: Sequence[int]) -> tuple[int, int] | None:
    """Returns the measured numbers on both sides, twice the same where the number itself is measured; None outside."""
    place = bisect_left(measured, count)
    if place == len(measured) or (place == 0 and measured[0] != count):
        return None
    return (count, count) if measured[place] == count else (measured[place - 1], measured[place])


def _share(count: int, sides: tuple[int, int]) -> float:
    low, high = sides
    return 0.0 if low == high else (count - low) / (high - low)


def _distance(one: Counts, other: Counts) -> float:
    """Returns how far numbers of channels lie apart, by their ratios; never 0."""
    return math.hypot(math.log(one[0] / other[0]), math.log(one[1] / other[1])) + 1e-6
