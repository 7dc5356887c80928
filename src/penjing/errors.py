"""What the user is told when something can't be done: one exception type, and the nearest-name hint."""

import difflib
from collections.abc import Iterable


class PenjingError(Exception):
    """Bad input or an impossible request; the message says what was wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> PenjingError:
    """Returns the error for a `name` that is not among the `known` ones, with the nearest name first."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return PenjingError(f"Unknown {kind} '{name}'. {hint}Known: {', '.join(choices)}.")


def with_article(noun: str) -> str:
    """Returns a noun, such as the name of a class, behind its article: "an int", "a str"."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"
