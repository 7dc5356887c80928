"""Changes of a user's module that can be undone."""

from collections.abc import Callable
from typing import Any

from torch import nn


class Changes:
    """What was changed, so that it can be put back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set(self, table: dict[str, Any], key: str, value: Any) -> None:
        """Replaces the value of a key that the table has."""
        before = table[key]
        self._undo.append(lambda: table.__setitem__(key, before))
        table[key] = value

    def keep(self, *tables: dict[Any, Any]) -> None:
        """Remembers whole tables, of which keys may go or come, with their order."""
        for table in tables:
            self._undo.append(lambda table=table, before=dict(table): (table.clear(), table.update(before)))  # type: ignore[misc]

    def retype(self, module: nn.Module, kind: type) -> None:
        """Makes a module one of another class."""
        before = type(module)
        self._undo.append(lambda: setattr(module, "__class__", before))
        module.__class__ = kind

    def mark(self) -> int:
        """Returns a place to go back to by `restore`."""
        return len(self._undo)

    def restore(self, mark: int = 0) -> None:
        """Undoes what was changed since a mark, the last first."""
        while len(self._undo) > mark:
            self._undo.pop()()
