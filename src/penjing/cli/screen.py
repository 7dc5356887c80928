"""The console on which the command line prints: text stays as it is, whatever names, paths and errors hold."""

import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text


class Screen(Console):
    """A console that takes strings literally: no markup, no emoji, no control codes. Styles come in `styled` texts.

    Args:
        options: keyword arguments of rich's Console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a string as it is printed, in a line or in a cell of a table."""
        return super().render_str(printable(text), **options)


def styled(text: str, style: str) -> Text:
    """Returns a text in a style such as "bold" or "red"."""
    return Text(printable(text), style)


def printable(text: str) -> str:
    r"""Returns a text with control characters, and characters that UTF-8 can't encode, spelt out, such as "\x1b".

    Line breaks and tabs stay.
    """
    return "".join(char if _is_harmless(char) else char.encode("unicode_escape").decode() for char in text)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"  # other languages' spaces
