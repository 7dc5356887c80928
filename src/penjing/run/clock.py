"""How long a run may take, and which part of that time each stage may use."""

import math
import time
from dataclasses import dataclass, field

CHOOSING = 0.4  # share of a time limit after which no further width is measured
MEASURING = 40.0  # seconds that measuring and profiling the two files side by side takes where there is time
MEASURED_SHARE = 0.15  # of a time limit, which it may take where there isn't
EVALUATIONS = 4  # what follows training takes about as long as lowering and judging the original so many times


@dataclass(frozen=True)
class Clock:
    """A limit on the time of one command.

    Attributes:
        began: value of `time.monotonic()` when the command began.
        minutes: the limit; None for none.
    """

    began: float = field(default_factory=time.monotonic)
    minutes: float | None = None

    @property
    def end(self) -> float | None:
        """When everything should be done, as a value of `time.monotonic()`."""
        return None if self.minutes is None else self.began + 60 * self.minutes

    def choosing_ends(self, profiling: float) -> float | None:
        """Returns when measuring candidates should be done.

        Args:
            profiling: seconds that lowering and judging the original took.
        """
        if self.minutes is None or self.end is None:
            return None
        return min(self.began + CHOOSING * 60 * self.minutes, self.end - self.verifying(profiling))

    def training_ends(self, profiling: float) -> float | None:
        """Returns when training should be done, so that quantising, lowering and verifying fit in.

        Args:
            profiling: seconds that lowering and judging the original took.
        """
        return None if self.end is None else self.end - self.verifying(profiling)

    def verifying(self, profiling: float) -> float:
        """Returns the seconds that are kept for what follows training."""
        measuring = MEASURING if self.minutes is None else min(MEASURING, MEASURED_SHARE * 60 * self.minutes)
        return EVALUATIONS * profiling + measuring


def seconds_until(deadline: float | None) -> float:
    """Returns the seconds that are left until a value of `time.monotonic()`: below 0 behind it, infinite for None."""
    return math.inf if deadline is None else deadline - time.monotonic()
