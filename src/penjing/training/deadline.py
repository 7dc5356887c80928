"""How many steps fit into the time that is left."""

import time

# The share of the time until a deadline that the steps are planned to take; the rest is for noise and checkpoints.
USED = 0.9
# The share of that time that finding the fastest variant may take.
FOR_TRYING = 0.1
# Steps after which their mean time is trusted more than the plan.
TRUSTED = 10


def left(deadline: float | None) -> float:
    """Returns the seconds until a value of `time.monotonic()`, at least 0; infinite without one."""
    return float("inf") if deadline is None else max(0.0, deadline - time.monotonic())


def over(deadline: float | None) -> bool:
    """Whether the deadline has come."""
    return left(deadline) == 0


def fitting(total: int, deadline: float | None, seconds: float) -> int:
    """Returns how many of `total` steps, each of that many seconds, are sure enough to end by the deadline."""
    return total if deadline is None else min(total, int(USED * left(deadline) / seconds))


def shortened(total: int, step: int, deadline: float | None, seconds: float, counted: int) -> int:
    """Returns the new total of a run at `step`, whose last `counted` steps took `seconds` on average.

    So the learning rate comes down to its end in time also where steps take longer than those that were tried.
    """
    if deadline is None or counted < TRUSTED or seconds * (total - step) < left(deadline):
        return total
    return step + fitting(total - step, deadline, seconds)
