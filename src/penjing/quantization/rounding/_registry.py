"""The table of roundings."""

from collections.abc import Callable
from typing import Any

from penjing.errors import PenjingError
from penjing.registry import Entry, Registry

# A rounding is called as `rounding(real, generator)`, with weights in steps of their grid, counted from its zero point, and
# returns integers.
# A rounding with the trait "learned" is called as `rounding(part, generator, number)` instead, for one part of the network
# after another, and returns a `Learned`. Its trait "spans" is a function that splits the network into parts, such as
# `layers` or `blocks`; its trait "importance", if it has one, is a function that weighs the channels of the parts' outputs,
# such as `gauss_newton`. The user writes the number behind the rounding's name; the trait "number" says what it means.
Rounding = Callable[..., Any]
roundings: Registry[Rounding] = Registry("rounding")


def find_rounding(given: str) -> tuple[Entry[Rounding], int | None]:
    """Parses "nearest" or "adaround:500"; returns the rounding and the number behind its name.

    Raises:
        PenjingError: the name is unknown, or the text behind it is no number.
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
