"""What whole models took, against what their kernels promised: corrects predictions by a few measured plans."""

import numpy as np


class LatencyCurve:
    """A curve from the milliseconds that a model's kernels take to the latency that the model has.

    Through the origin and the measured plans, straight between them, and never falling: where a noisy measurement says that a
    plan with less work takes longer, both count with their mean. So a search that measures the plan that it expects at its
    limit, and corrects, closes in on the limit from both sides.
    """

    def __init__(self) -> None:
        """Begins without a measured plan."""
        self._points: list[tuple[float, float, float]] = []

    def add(self, kernels: float, latency: float, weight: float = 1.0) -> None:
        """Adds a measured plan.

        Args:
            kernels: milliseconds that its kernels take together; above 0.
            latency: what it took, in any unit.
            weight: how much it counts where other plans contradict it.
        """
        self._points.append((kernels, latency, weight))

    def latency(self, kernels: float) -> float:
        """Returns the latency that is expected of a model whose kernels take so long."""
        return float(np.interp(kernels, *self._curve(kernels)))

    def kernels(self, latency: float) -> float:
        """Returns the longest time that kernels may take if the model is to have a latency."""
        promised, taken = self._curve()
        promised, taken = self._curve(promised[-1] * max(1.0, 2 * latency / taken[-1]))
        after = int(np.searchsorted(taken, latency, side="right"))  # of equal latencies the one with the most work
        share = (latency - taken[after - 1]) / (taken[after] - taken[after - 1])
        return float(promised[after - 1] + share * (promised[after] - promised[after - 1]))

    def _curve(self, until: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Returns the curve's corners, the last of which lies at `until` or behind it."""
        from scipy.optimize import isotonic_regression  # takes as long to import as everything else together

        points = sorted(self._points)
        promised, taken, weights = (np.array(column) for column in zip(*points, strict=True))
        rising = isotonic_regression(taken, weights=weights).x
        if until > promised[-1]:
            rising, promised = np.append(rising, rising[-1] * until / promised[-1]), np.append(promised, until)
        return np.append(0.0, promised), np.append(0.0, rising)
