"""Rules for arguments, the decorator with which a verb applies them, and the one sentence that an error says of a bad value.

A verb names a rule for each argument, `@checked(seed=SEED, exclude=PATTERNS)`; the code behind it checks no argument
again. A check that needs several arguments, or the graph, stays in the verb.
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
    """An argument's value breaks its rule."""


@dataclass(frozen=True)
class Rule:
    """The values that one argument may have.

    Attributes:
        says: the allowed values in words, to stand behind "it must be".
        fits: tells whether a value is allowed.
        plain: converts an allowed value to the one that the verb works with.
    """

    says: str
    fits: Callable[[Any], bool]
    plain: Callable[[Any], Any] = lambda value: value

    def read(self, name: str, value: Any) -> Any:
        """Checks a value and returns it as the verb works with it.

        Raises:
            Unfit: the value isn't allowed; the message names the argument, the value, and what is allowed.
        """
        if not self.fits(value):
            raise Unfit(f"{name}={shown(value)}: it must be {self.says}.")
        return self.plain(value)


def check(given: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Checks named values, such as a record's fields, by the rules of the same names.

    Raises:
        Unfit: a value isn't allowed; the first such value in the order of the rules is named.
    """
    for name, rule in rules.items():
        rule.read(name, given[name])


def checked(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that checks a function's arguments by these rules; default values aren't checked."""

    def at_the_door(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        if strange := rules.keys() - signature.parameters.keys():
            raise TypeError(f"{function.__qualname__} has no arguments {sorted(strange)}")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # its own TypeError is clearer: it has the function's name
            for name, rule in rules.items():
                if name in bound.arguments:
                    bound.arguments[name] = rule.read(name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return call

    return at_the_door


def shown(value: Any) -> str:
    """Returns the text with which an error repeats a value of any type: short and on one line."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write thousands of digits
        return f"{'-' if value < 0 else ''}10^{round(value.bit_length() * math.log10(2))} (about)"
    if not isinstance(value, bool | int | float | str | bytes | os.PathLike | np.generic | Sequence | Mapping | None):
        return f"<{type(value).__qualname__}>"  # the text of a tensor or a module may be pages
    try:
        text = repr(value)
    except ValueError:  # a sequence holds an integer of thousands of digits
        return f"<{type(value).__qualname__}>"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _native(value: Any) -> int | float:
    """Returns Python's own int or float for a number of another library, such as NumPy's, which JSON can't write."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def whole(least: int, most: int) -> Rule:
    """A whole number in a range, both ends included. True and False don't count as numbers."""
    says = f"a whole number from {least:,} to {most:,}"
    return Rule(says, lambda value: _is_whole(value) and least <= value <= most, _native)


def number(
    least: float = -math.inf, *, above: float = -math.inf, below: float = math.inf, most: float = math.inf
) -> Rule:
    """A finite number in a range. True and False don't count as numbers."""
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
    """The values that a rule allows, and None."""
    return Rule(
        f"{rule.says}, or None",
        lambda value: value is None or rule.fits(value),
        lambda value: None if value is None else rule.plain(value),
    )


def either(*rules: Rule) -> Rule:
    """The values that at least one of several rules allows; the first rule that allows a value converts it."""

    def plain(value: Any) -> Any:
        return next(rule for rule in rules if rule.fits(value)).plain(value)

    return Rule(", or ".join(rule.says for rule in rules), lambda value: any(rule.fits(value) for rule in rules), plain)


def among(*values: str | bool) -> Rule:
    """One of a few values."""

    def fits(value: Any) -> bool:
        return isinstance(value, str | bool) and any(value is one or value == one for one in values)

    return Rule(" or ".join(map(repr, values)), fits)


def a(kind: type | tuple[type, ...], says: str) -> Rule:
    """An instance of a class; `says` tells how to make one."""
    return Rule(says, lambda value: isinstance(value, kind))


def mapping(of: Rule, says: str) -> Rule:
    """A mapping from names to values that a rule allows."""

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(isinstance(key, str) and of.fits(value[key]) for key in value)

    return Rule(says, fits, lambda value: {key: of.plain(one) for key, one in value.items()})


def several(of: Rule, says: str) -> Rule:
    """A sequence of values that a rule allows; a string doesn't count as a sequence."""

    def fits(value: Any) -> bool:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(map(of.fits, value))

    return Rule(says, fits, lambda value: tuple(of.plain(one) for one in value))


_FLOATS = 1.7976931348623157e308  # the largest finite float64

# Rules for arguments that several verbs have.
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
SEED = whole(0, 2**32 - 1)  # the range of seeds that every generator accepts
EPOCHS = whole(0, 1_000_000)  # passes over the data: more is a typing error, even for the smallest data set
THREADS = whole(1, 1024)  # threads: more than machines have cores; a runtime starts all of them at once
BATCH = whole(1, 4096)  # samples in a call whose latency is measured: 4096 images of 224 x 224 take 2.5 GB
COUNT = whole(1, 2**31 - 1)  # of samples, steps and the like; the code that computes with a count uses 64 bits
RATE = optional(number(above=0))  # no upper bound: a learning rate that is too large makes training diverge
PROGRESS = either(FLAG, among("always"))
