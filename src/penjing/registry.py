"""A table from a literature name to one function and what is known about it; each family of methods has one.

A family is a table and the record of its entries: a frozen dataclass derived from `Entry`, with a typed field for whatever
only this family knows of its members. `register` takes the record's fields as keywords, so that a type checker knows them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, get_args, get_origin, get_type_hints

from penjing.errors import PenjingError, unknown_name

Need = Literal["data", "labels", "gradients", "training", "validation"]

F = TypeVar("F", bound=Callable[..., Any])
G = TypeVar("G", bound=Callable[..., Any])
P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[F]):
    """What is known of every registered method, of whatever family.

    Attributes:
        function: what it does; the first line of its docstring is the method's summary.
        source: paper and year, or the standard that defines it.
        needs: what it asks for beyond the model.
        name: what users type; by default the function's own name, without a trailing underscore.
    """

    function: F = field(kw_only=False)
    source: str
    needs: AbstractSet[Need] = frozenset()
    name: str = ""

    def __post_init__(self) -> None:
        """Completes the name, and freezes what the method needs.

        Raises:
            ValueError: a field has a value that its type doesn't list.
        """
        object.__setattr__(self, "name", self.name or self.function.__name__.rstrip("_"))
        object.__setattr__(self, "needs", frozenset(self.needs))
        for key, kind in get_type_hints(type(self)).items():
            for value in _unlisted(getattr(self, key), kind):
                raise ValueError(f"'{self.name}' has {key}={value!r}, which {kind} doesn't list")

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


E = TypeVar("E", bound=Entry[Any])


class Registry(Mapping[str, E], Generic[E, P]):
    """The members of one family, by name.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Shape(Entry[Callable[[], None]]):
        ...     corners: int
        >>> shapes = Registry("shape", Shape)
        >>> @shapes.register(source="Euclid", corners=0)
        ... def circle():
        ...     "All points at one distance."
        >>> shapes["circle"].corners
        0
    """

    def __init__(self, kind: str, record: Callable[Concatenate[Any, P], E]) -> None:
        """Makes an empty table.

        Args:
            kind: what a member is called, for errors.
            record: the dataclass of the family's entries.
        """
        self.kind = kind
        self._record = record
        self._entries: dict[str, E] = {}

    def register(self, *args: P.args, **fields: P.kwargs) -> Callable[[G], G]:
        """Returns a decorator that files a function, with the fields of the family's record as keywords.

        The decorator raises `TypeError` where a field is missing or unknown, and `ValueError` where a name is taken, the
        function has no docstring, or a field has a value that its type doesn't list.
        """

        def add(function: G) -> G:
            entry = self._record(function, *args, **fields)
            if entry.name in self._entries:
                raise ValueError(f"{self.kind} '{entry.name}' is registered twice")
            if not entry.summary:
                raise ValueError(f"{self.kind} '{entry.name}' has no docstring, whose first line `penjing list` shows")
            self._entries[entry.name] = entry
            return function

        return add

    def __getitem__(self, name: str) -> E:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class OwnNumber:
    """The number that may stand in a method's name, behind a colon.

    Attributes:
        meaning: what the number means, in words.
        default: the number if the user types none. If it is an `int`, only whole numbers are allowed.
        lowest: the smallest allowed number.
        highest: the largest allowed number; infinity, which is not allowed itself, where there is none.
        above: whether the number must lie above `lowest`, which is then not allowed itself.
    """

    meaning: str
    default: float
    lowest: float
    highest: float = math.inf
    above: bool = False

    @property
    def allowed(self) -> str:
        """The allowed numbers in words."""
        kind, bounded = "a whole number" if isinstance(self.default, int) else "a number", math.isfinite(self.highest)
        if self.above:
            return f"{kind} above {self.lowest:g}" + (f" and at most {self.highest:g}" if bounded else "")
        return f"{kind} from {self.lowest} to {self.highest}" if bounded else f"{kind} of at least {self.lowest}"

    def read(self, text: str) -> float:
        """Returns the number that a text means.

        Raises:
            ValueError: the text is no number, or the number isn't allowed.
        """
        number = int(text) if isinstance(self.default, int) else float(text)
        large_enough = number > self.lowest if self.above else number >= self.lowest
        if not (large_enough and number <= self.highest and number != math.inf):
            raise ValueError(f"{text} is not {self.allowed}")
        return number


@dataclass(frozen=True, kw_only=True)
class NumberedEntry(Entry[F]):
    """A registered method whose name may hold a number, as in "cubic:0.5".

    Attributes:
        number: the method's own number; None where it has none.
    """

    number: OwnNumber | None = None


N = TypeVar("N", bound=NumberedEntry[Any])


@dataclass(frozen=True)
class Chosen(Generic[N]):
    """A method as the user typed it.

    Attributes:
        name: the name as typed.
        entry: the registered method.
        number: the method's own number; 0 where it has none.
    """

    name: str
    entry: N
    number: float = 0.0

    @classmethod
    def read(cls, argument: str, name: str, table: Mapping[str, N]) -> Self:
        """Returns the method that a name means, its number included: "cubic", "cubic:0.5", "iterative:10".

        Args:
            argument: what the user calls the argument, for errors.
            name: the name as typed.
            table: the methods of the family.

        Raises:
            PenjingError: there is no such method, its number makes no sense, or the method takes none.
        """
        kind, colon, text = name.partition(":")
        entry = table[kind]
        known = entry.number
        if not colon:
            return cls(name, entry, 0.0 if known is None else known.default)
        if known is None:
            raise PenjingError(f"{argument}='{name}': '{kind}' takes no number.")
        try:
            return cls(name, entry, known.read(text))
        except ValueError:
            raise PenjingError(
                f"{argument}='{name}': what follows the colon is the {known.meaning}, {known.allowed}."
            ) from None


def _unlisted(value: Any, kind: Any) -> list[Any]:
    """Returns which of a field's values, or of those within it, its type `Literal[…]` doesn't list."""
    if get_origin(kind) is Literal:
        return [] if value in get_args(kind) else [value]
    if get_origin(kind) in (tuple, AbstractSet):
        return [wrong for one in value for wrong in _unlisted(one, get_args(kind)[0])]
    return []
