"""What arguments may be: rules, the door at which a verb applies them, and the one sentence about what doesn't fit.

A verb names a rule for each argument, `@checked(seed=SEED, exclude=PATTERNS)`; nothing behind the door looks again. What
depends on several arguments, or on the graph, is the verb's own to say.
"""

import functools
import inspect
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np

from penjing.errors import PenjingError

P = ParamSpec("P")
R = TypeVar("R")

SHOWN = 60  # characters of a value that an error repeats


class Unfit(PenjingError):
    """An argument isn't what it must be."""


@dataclass(frozen=True)
class Rule:
    """What one argument may be.

    Attributes:
        says: what is allowed, as it stands behind "it must be".
        fits: tells whether a value is.
        plain: makes of a value that fits what the verb goes on with.
    """

    says: str
    fits: Callable[[Any], bool]
    plain: Callable[[Any], Any] = lambda value: value

    def read(self, name: str, value: Any) -> Any:
        """Returns the value to go on with.

        Raises:
            Unfit: it doesn't fit; names the argument, what was given, and what is allowed.
        """
        if not self.fits(value):
            raise Unfit(f"{name}={shown(value)}: it must be {self.says}.")
        return self.plain(value)


def check(given: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Applies rules to values by name, such as a record's fields.

    Raises:
        Unfit: the first that doesn't fit.
    """
    for name, rule in rules.items():
        rule.read(name, given[name])


def checked(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that reads the arguments of a function by these rules; defaults are taken as they are."""

    def at_the_door(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        if strange := rules.keys() - signature.parameters.keys():
            raise TypeError(f"{function.__qualname__} has no arguments {sorted(strange)}")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # which says it better, with the function's name
            for name, rule in rules.items():
                if name in bound.arguments:
                    bound.arguments[name] = rule.read(name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return call

    return at_the_door


def shown(value: Any) -> str:
    """Returns a value as an error repeats it: short, on one line, and of whatever kind."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write thousands of digits
        return f"{'-' if value < 0 else ''}10^{round(value.bit_length() * math.log10(2))} (about)"
    if not isinstance(value, bool | int | float | str | bytes | os.PathLike | np.generic | Sequence | Mapping | None):
        return f"<{type(value).__qualname__}>"  # the text of a tensor or a module may be pages
    try:
        text = repr(value)
    except ValueError:  # of the same refusal, within a sequence
        return f"<{type(value).__qualname__}>"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _native(value: Any) -> int | float:
    """Returns Python's own number for one of NumPy's and the like, which JSON doesn't know."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def whole(least: int, most: int) -> Rule:
    """A whole number in a range, both ends included. True and False are none."""
    says = f"a whole number from {least:,} to {most:,}"
    return Rule(says, lambda value: _is_whole(value) and least <= value <= most, _native)


def number(
    least: float = -math.inf, *, above: float = -math.inf, below: float = math.inf, most: float = math.inf
) -> Rule:
    """A finite number in a range. True and False are none."""
    bounds = {
        f"{least:g} or more": least > -math.inf,
        f"more than {above:g}": above > -math.inf,
        f"less than {below:g}": below < math.inf,
        f"at most {most:g}": most < math.inf,
    }
    says = ", ".join(["a number", *(text for text, given in bounds.items() if given)])

    def fits(value: Any) -> bool:
        if not _is_number(value) or not abs(value) <= _FLOATS:  # infinity, NaN, and integers that no float can hold
            return False
        return bool(least <= value <= most and above < value < below)

    return Rule(says, fits, _native)


def optional(rule: Rule) -> Rule:
    """What a rule allows, or None."""
    return Rule(
        f"{rule.says}, or None",
        lambda value: value is None or rule.fits(value),
        lambda value: None if value is None else rule.plain(value),
    )


def either(*rules: Rule) -> Rule:
    """What one of several rules allows; the first that does reads it."""

    def plain(value: Any) -> Any:
        return next(rule for rule in rules if rule.fits(value)).plain(value)

    return Rule(", or ".join(rule.says for rule in rules), lambda value: any(rule.fits(value) for rule in rules), plain)


def among(*values: str | bool) -> Rule:
    """One of a few values."""

    def fits(value: Any) -> bool:
        return isinstance(value, str | bool) and any(value is one or value == one for one in values)

    return Rule(" or ".join(map(repr, values)), fits)


def a(kind: type | tuple[type, ...], says: str) -> Rule:
    """A value of a class; `says` tells how one is made."""
    return Rule(says, lambda value: isinstance(value, kind))


def mapping(of: Rule, says: str) -> Rule:
    """A mapping from names to what a rule allows."""

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(isinstance(key, str) and of.fits(value[key]) for key in value)

    return Rule(says, fits, lambda value: {key: of.plain(one) for key, one in value.items()})


def several(of: Rule, says: str) -> Rule:
    """A sequence of what a rule allows; a text is no sequence."""

    def fits(value: Any) -> bool:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(map(of.fits, value))

    return Rule(says, fits, lambda value: tuple(of.plain(one) for one in value))


_FLOATS = 1.7976931348623157e308  # the largest

# What several verbs take.
TEXT = Rule("a text", lambda value: isinstance(value, str))
NAME = Rule("a name", lambda value: isinstance(value, str) and bool(value))
FLAG = Rule("True or False", lambda value: isinstance(value, bool | np.bool_), bool)
FUNCTION = Rule("a function", lambda value: callable(value) and not isinstance(value, type))
PATH = Rule(
    "a path",
    lambda value: (
        isinstance(value, str | os.PathLike)
        and isinstance(os.fspath(value), str)
        and bool(os.fspath(value))
        and "\0" not in os.fspath(value)
    ),
)
PATTERNS = Rule(
    "a pattern of module paths, or a sequence of such",
    lambda value: (
        isinstance(value, str) or (isinstance(value, Sequence | set) and all(isinstance(one, str) for one in value))
    ),
    lambda value: (value,) if isinstance(value, str) else tuple(sorted(value) if isinstance(value, set) else value),
)
SEED = whole(0, 2**32 - 1)  # what every generator takes
EPOCHS = whole(0, 1_000_000)  # of the smallest data set; more is a slip of the pen
THREADS = whole(1, 1024)  # more cores than a machine has; a runtime starts every one of them at once
BATCH = whole(1, 4096)  # samples of a call whose latency is measured: images of 224 x 224 take 2.5 GB
COUNT = whole(1, 2**31 - 1)  # of whatever there may be many; what computes with it does so in 64 bits
RATE = optional(number(above=0))  # one that is too large is told when training diverges
PROGRESS = either(FLAG, among("always"))
