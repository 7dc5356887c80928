"""The table of observers."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from penjing.errors import PenjingError
from penjing.evidence.statistics import Statistics
from penjing.registry import Entry, Registry

Observer = Callable[..., tuple[float, float]]
"""A function that returns the smallest and the largest real value that the grid should cover.

It is called as `observer(statistics, steps)`, with the number of steps of the grid (255 for 8 bits). An observer with a
parameter takes that as a third argument.
"""


@dataclass(frozen=True, kw_only=True)
class ObserverEntry(Entry[Observer]):
    """A registered observer.

    Attributes:
        statistics: the class that sums up the batches. Where that class takes an argument, such as how fast a moving average
            follows, the observer's parameter is passed to it.
    """

    statistics: Callable[..., Statistics]


observers = Registry("observer", ObserverEntry)


@dataclass(frozen=True)
class ChosenObserver:
    """An observer as the user typed it.

    Attributes:
        name: the text that the user typed.
        range_of: returns the range from the statistics and the number of the grid's steps, with the parameter in the text.
        statistics: makes empty statistics of the kind that `range_of` reads.
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
