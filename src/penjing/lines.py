"""Lines that a run tells people, and the tables that notebooks show."""

from collections.abc import Sequence
from html import escape


class Lasting(str):
    """A line that stays on the screen, where others are drawn over by the next one: a warning, or what a person waits for."""

    __slots__ = ()


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Returns a table for a notebook, all text escaped: a line above it, its rows, and lines below it."""
    parts = [f"<p><b>{escape(title)}</b></p>"] if title else []
    if rows:
        body = "".join(_html_row("td", row) for row in rows)
        parts.append(f"<table><thead>{_html_row('th', columns)}</thead><tbody>{body}</tbody></table>")
    return "".join([*parts, *(f"<p>{escape(note)}</p>" for note in notes)])


def _html_row(tag: str, cells: Sequence[str]) -> str:
    inside = "".join(f'<{tag} style="text-align:left">{escape(cell)}</{tag}>' for cell in cells)
    return f"<tr>{inside}</tr>"
