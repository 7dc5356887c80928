"""A table from a literature name to one function and what is known about it; each family of techniques has one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penjing.errors import unknown_name

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[F]):
    """One registered choice.

    Attributes:
        name: what users type; the function's own name.
        function: what it does.
        source: paper and year, or the standard that defines it.
        needs: what it asks for beyond the model: any of "data", "labels", "gradients", "training".
        summary: the first line of the function's docstring.
        traits: facts that only this family knows (a criterion's level, for example).
    """

    name: str
    function: F
    source: str
    needs: frozenset[str]
    summary: str
    traits: Mapping[str, Any]


class Registry(Mapping[str, Entry[F]]):
    """The members of one family, by name.

    Example:
        >>> shapes: Registry = Registry("shape")
        >>> @shapes.register(source="Euclid")
        ... def circle():
        ...     "All points at one distance."
        >>> shapes["circle"].source
        'Euclid'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[F]] = {}

    def register(
        self, *, source: str, needs: tuple[str, ...] = (), name: str | None = None, **traits: Any
    ) -> Callable[[F], F]:
        """Returns a decorator that files a function under its own name (a trailing underscore is dropped), or `name`."""

        def add(function: F) -> F:
            key = name or function.__name__.rstrip("_")
            if key in self._entries:
                raise ValueError(f"{self.kind} '{key}' is registered twice")
            summary = (function.__doc__ or "").strip().splitlines()[0]
            self._entries[key] = Entry(key, function, source, frozenset(needs), summary, traits)
            return function

        return add

    def __getitem__(self, name: str) -> Entry[F]:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
