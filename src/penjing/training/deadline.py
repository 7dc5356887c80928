"""Computes how many training steps fit into the time that is left."""

import time

# Share of the time until a deadline that the steps are planned to take; the rest is for slower steps and for checkpoints.
USED = 0.9
# Share of the time until a deadline that finding the fastest variant may take.
FOR_TRYING = 0.1
# Number of steps after which their mean time is trusted more than the time that was measured before the run.
TRUSTED = 10


def left(deadline: float | None) -> float:
    """Returns the seconds until `deadline`, a value of `time.monotonic()`: at least 0, and infinite without a deadline."""
    return float("inf") if deadline is None else max(0.0, deadline - time.monotonic())


def over(deadline: float | None) -> bool:
    """Tells whether the deadline has passed."""
    return left(deadline) == 0


def fitting(total: int, deadline: float | None, seconds: float) -> int:
    """Returns how many of `total` steps can be expected to end by the deadline if each takes `seconds`."""
    return total if deadline is None else min(total, int(USED * left(deadline) / seconds))


def shortened(total: int, step: int, deadline: float | None, seconds: float, counted: int) -> int:
    """Returns how many steps a run at `step` should make in all, whose last `counted` steps took `seconds` on average.

    With the new total the learning rate still falls to its end in time where steps take longer than those that were tried.
    """
    if deadline is None or counted < TRUSTED or seconds * (total - step) < left(deadline):
        return total
    return step + fitting(total - step, deadline, seconds)
