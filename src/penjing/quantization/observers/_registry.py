"""The table of observers."""

import inspect
from collections.abc import Callable
from typing import Any

from penjing.errors import PenjingError
from penjing.evidence.statistics import Statistics
from penjing.registry import Registry

# Called as `observer(statistics, steps)`, with the number of steps of the grid (255 for 8 bits), it gives the smallest
# and the largest real value that the grid should cover. Observers with a parameter take it as a third argument.
Observer = Callable[..., tuple[float, float]]

# Each entry's trait "statistics" is the class that is fed with the batches. Where that class takes an argument, the
# observer's parameter goes to it: it says how batches are summed up.
observers: Registry[Observer] = Registry("observer")


def find_observer(given: str) -> tuple[Observer, Callable[[], Statistics]]:
    """Reads "percentile" or "percentile:99.9".

    Returns:
        The observer, with its parameter, and what makes the statistics that it reads.

    Raises:
        PenjingError: an unknown name, or a parameter that is no number or that nothing takes.
    """
    name, colon, text = given.partition(":")
    entry = observers[name]
    statistics: Any = entry.traits["statistics"]
    if not colon:
        return entry.function, statistics
    try:
        parameter = float(text)
    except ValueError:
        raise PenjingError(f"The observer '{given}' has a parameter that is no number: '{text}'.") from None
    if len(inspect.signature(entry.function).parameters) > 2:
        return lambda seen, steps: entry.function(seen, steps, parameter), statistics
    if inspect.signature(statistics).parameters:
        statistics(parameter)  # a wrong one is refused before the data is read
        return entry.function, lambda: statistics(parameter)
    raise PenjingError(f"The observer '{name}' takes no parameter, so '{given}' means nothing.")
