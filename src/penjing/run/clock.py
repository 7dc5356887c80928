"""The time limit of a run, and the share of it that each stage may use."""

import math
import time
from dataclasses import dataclass, field

TIMING = 20.0  # seconds for timing both files side by side, unless `TIMED_CALLS` are done before
TIMED_CALLS = 2000  # calls of both files together
BESIDE = 10.0  # seconds for measuring peak memory and the layers' times
MEASURED_SHARE = 0.15  # share of a time limit that timing, peak memory and layers' times may take at most
TRAINING_SHARE = 0.15  # share of a time limit that measuring candidates leaves for training
LOWERINGS = 2  # lowerings of the original that take as long as all lowering behind training
EVALUATIONS = 4  # judgings of the original that take as long as all passes over data behind training


@dataclass(frozen=True)
class Known:
    """Times measured with the original, from which the time of verifying is estimated.

    Attributes:
        lowering: seconds for lowering the original.
        judging: seconds for judging the lowered file on the data; 0 where it wasn't judged.
        call: seconds of one call of the lowered file; None where no call was timed.
    """

    lowering: float
    judging: float
    call: float | None = None


@dataclass(frozen=True)
class Clock:
    """A limit on the time of one command.

    Attributes:
        began: value of `time.monotonic()` when the command began.
        minutes: the limit; None without a limit.
    """

    began: float = field(default_factory=time.monotonic)
    minutes: float | None = None

    @property
    def end(self) -> float | None:
        """The value of `time.monotonic()` by which the command should end; None without a limit."""
        return None if self.minutes is None else self.began + 60 * self.minutes

    def choosing_ends(self, known: Known, *, training: bool) -> float | None:
        """Returns the value of `time.monotonic()` by which measuring candidates should end; None without a limit.

        Args:
            known: times measured with the original.
            training: whether training follows; some time is then left for it.
        """
        ends = self.training_ends(known)
        if ends is None or self.minutes is None:
            return None
        return ends - (TRAINING_SHARE * 60 * self.minutes if training else 0.0)

    def training_ends(self, known: Known) -> float | None:
        """Returns the value of `time.monotonic()` by which training should end to leave time for all later stages."""
        return None if self.end is None else self.end - self.verifying(known)

    def verifying(self, known: Known) -> float:
        """Estimates the seconds of the stages behind training.

        Where the original wasn't judged, each pass over the data is assumed to take as long as lowering.
        """
        timing = TIMING if known.call is None else min(TIMING, TIMED_CALLS * known.call)
        share = math.inf if self.minutes is None else MEASURED_SHARE * 60 * self.minutes
        return (
            LOWERINGS * known.lowering + EVALUATIONS * (known.judging or known.lowering) + min(timing + BESIDE, share)
        )


def seconds_until(deadline: float | None) -> float:
    """Returns the seconds left until a value of `time.monotonic()`: negative once it has passed, infinite for None."""
    return math.inf if deadline is None else deadline - time.monotonic()
