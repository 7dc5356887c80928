"""How long a run may take, and which part of that time each stage may use."""

import math
import time
from dataclasses import dataclass, field

TIMING = 20.0  # seconds for which the two files are timed side by side, unless the calls are done before
TIMED_CALLS = 2000  # of both files together
BESIDE = 10.0  # seconds that peak memory and the layers' times take
MEASURED_SHARE = 0.15  # of a time limit, which these may take where there isn't more
TRAINING_SHARE = 0.15  # of a time limit, which is left for training while further widths are measured
LOWERINGS = 2  # what follows training writes about as much as so many lowerings of the original
EVALUATIONS = 4  # and runs networks on the data for as long as judging the original so many times


@dataclass(frozen=True)
class Known:
    """What is known of how long verifying takes, from what was done with the original.

    Attributes:
        lowering: seconds that lowering it took.
        judging: seconds that judging its file on the data took; 0 where it wasn't judged.
        call: seconds of a call of its file; None where none was timed.
    """

    lowering: float
    judging: float
    call: float | None = None


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

    def choosing_ends(self, known: Known, *, training: bool) -> float | None:
        """Returns when measuring candidates should be done.

        Args:
            known: of the original.
            training: whether what is pruned will be trained, for which some time is left then.
        """
        ends = self.training_ends(known)
        if ends is None or self.minutes is None:
            return None
        return ends - (TRAINING_SHARE * 60 * self.minutes if training else 0.0)

    def training_ends(self, known: Known) -> float | None:
        """Returns when training should be done, so that quantising, lowering and verifying fit in."""
        return None if self.end is None else self.end - self.verifying(known)

    def verifying(self, known: Known) -> float:
        """Returns the seconds of what follows training.

        Where the original wasn't judged, comparing both files is taken to last as long for each pass as lowering did.
        """
        timing = TIMING if known.call is None else min(TIMING, TIMED_CALLS * known.call)
        share = math.inf if self.minutes is None else MEASURED_SHARE * 60 * self.minutes
        return (
            LOWERINGS * known.lowering + EVALUATIONS * (known.judging or known.lowering) + min(timing + BESIDE, share)
        )


def seconds_until(deadline: float | None) -> float:
    """Returns the seconds that are left until a value of `time.monotonic()`: below 0 behind it, infinite for None."""
    return math.inf if deadline is None else deadline - time.monotonic()
