"""The table of observers."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from penjing.errors import PenjingError
from penjing.evidence.statistics import Statistics
from penjing.registry import Entry, Registry

Observer = Callable[..., tuple[float, float]]
"""Gives the smallest and the largest real value that the grid should cover.

Called as `observer(statistics, steps)`, with the number of steps of the grid (255 for 8 bits). Observers with a parameter
take it as a third argument.
"""


@dataclass(frozen=True, kw_only=True)
class ObserverEntry(Entry[Observer]):
    """A registered observer.

    Attributes:
        statistics: the class that is fed with the batches. Where that class takes an argument, the observer's parameter
            goes to it: it says how batches are summed up.
    """

    statistics: Callable[..., Statistics]


observers = Registry("observer", ObserverEntry)


@dataclass(frozen=True)
class ChosenObserver:
    """An observer as the user typed it.

    Attributes:
        name: that text.
        range_of: gives the range from the statistics and the number of the grid's steps, with the parameter out of the text.
        statistics: makes the statistics that it reads.
    """

    name: str
    range_of: Observer
    statistics: Callable[[], Statistics]


def find_observer(given: str) -> ChosenObserver:
    """Returns the observer that "percentile" or "percentile:99.9" means.

    Raises:
        PenjingError: an unknown name, or a parameter that is no number or that nothing takes.
    """
    name, colon, text = given.partition(":")
    entry = observers[name]
    statistics = entry.statistics
    if not colon:
        return ChosenObserver(given, entry.function, statistics)
    try:
        parameter = float(text)
    except ValueError:
        raise PenjingError(f"The observer '{given}' has a parameter that is no number: '{text}'.") from None
    if len(inspect.signature(entry.function).parameters) > 2:
        return ChosenObserver(given, lambda seen, steps: entry.function(seen, steps, parameter), statistics)
    if inspect.signature(statistics).parameters:
        statistics(parameter)  # a wrong one is refused before the data is read
        return ChosenObserver(given, entry.function, lambda: statistics(parameter))
    raise PenjingError(f"The observer '{name}' takes no parameter, so '{given}' means nothing.")
