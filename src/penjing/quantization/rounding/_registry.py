"""The table of roundings."""

from collections.abc import Callable
from typing import Any

from penjing.errors import PenjingError
from penjing.registry import Entry, Registry

# Called as `rounding(real, generator)`: weights in steps of their grid, counted from its zero point, go to whole numbers.
# Those with the trait "learned" are called as `rounding(part, generator, number)` instead, one part of the network after the
# other, and return what they learned of it. The trait "spans" cuts the network into parts, as `layers` and `blocks`
# do; the trait "importance", where there is one, weighs the channels of their outputs, as `gauss_newton` does. The number
# stands behind their name, and the trait "number" says what it is.
Rounding = Callable[..., Any]
roundings: Registry[Rounding] = Registry("rounding")


def find_rounding(given: str) -> tuple[Entry[Rounding], int | None]:
    """Reads "nearest" or "adaround:500"; returns the rounding and the number behind its name.

    Raises:
        PenjingError: the name is unknown, or its number is none.
    """
    name, colon, text = given.partition(":") if isinstance(given, str) else (str(given), "", "")
    entry = roundings[name]
    if not colon:
        return entry, None
    if not entry.traits.get("number"):
        raise PenjingError(f"The rounding '{name}' takes no number, so '{given}' means nothing.")
    if not text.isdecimal() or int(text) < 1:
        raise PenjingError(
            f"The number in the rounding '{given}' must be a whole one above 0: {entry.traits['number']}."
        )
    return entry, int(text)
