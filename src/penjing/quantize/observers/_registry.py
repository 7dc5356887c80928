"""The table of observers."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from penjing.registry import Registry


class Statistics(Protocol):
    """What is remembered of a stream of tensors; its size doesn't depend on how many there were."""

    def update(self, values: Tensor) -> None:
        """Takes in one batch, of any shape, all finite."""


# Called as `observer(statistics, steps)`, with the number of steps of the grid (255 for 8 bits), it gives the smallest
# and the largest real value that the grid should cover. Observers with a parameter take it as a third argument.
Observer = Callable[..., tuple[float, float]]

# Each entry's trait "statistics" is the class that is fed with the batches.
observers: Registry[Observer] = Registry("observer")


def statistics_of(name: str) -> Callable[[], Statistics]:
    """Returns the class of the statistics that the observer of that name reads."""
    made: Any = observers[name].traits["statistics"]
    return made  # type: ignore[no-any-return]
