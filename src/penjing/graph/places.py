"""What is done where, as data: a place, an option for it, and a plan of options. It reads and writes `plan.json`.

Nothing here is a sentence, and nothing parses one: `penjing.report.words` makes sentences for people.
"""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from torch import Tensor, nn

from penjing import records
from penjing.checks import shown
from penjing.errors import PenjingError, unknown_name
from penjing.files import atomic_write
from penjing.lines import html_table
from penjing.records import Name

Json = Any
"""What JSON can hold: None, booleans, numbers, strings, lists and objects with strings as keys."""

T = TypeVar("T")

Kind = Literal["group", "branch", "weight", "value"]
MOST_NESTED = 8  # levels of a setting, which is flat, or nearly so; deeper nesting in a file is no plan


@dataclass(frozen=True, order=True)
class Place:
    """Where something is done. A group, a branch, a weight and a value with the same path are four places.

    Attributes:
        kind: "group" of channels, residual "branch", "weight" of a layer, or "value" that flows out of an op.
        path: the user's module path (of a group, its name; of an op outside all modules, the node's name).
    """

    kind: Kind
    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Option:
    """One thing that can be done, or was done, at a place.

    Attributes:
        place: where.
        technique: the name under which the technique is registered, such as "prune".
        setting: all that the technique needs to do it again, as plain JSON: `{"keep": 48, "criterion": "taylor"}`.
        before: what stood there, such as the number of units or the name of a grid; None before it is done.
        after: what stands there now.
        found: what came of it besides, as plain JSON: a reason why the place was left alone, what was corrected.
    """

    place: Place
    technique: Name
    setting: Mapping[str, Json]
    before: Json = None
    after: Json = None
    found: Mapping[str, Json] = field(default_factory=dict)

    def setting_as(self, kind: type[T]) -> T:
        """Returns the setting as a technique reads it.

        Args:
            kind: a dataclass with a field for every key that the technique knows; fields with a default may be missing.

        Raises:
            PenjingError: a key is unknown (the error names the nearest) or missing, or a value is of the wrong type.
        """
        known = [one.name for one in fields(kind)]
        for key in self.setting:
            if key not in known:
                raise self.refused(str(unknown_name("key", key, known)))
        try:
            return records.convert(self.setting, kind)
        except PenjingError as error:
            raise self.refused(f"{error}.") from error

    def refused(self, why: str) -> PenjingError:
        """Returns the error for an option that makes no sense; `why` is a sentence."""
        return PenjingError(f"The plan's option '{self.technique}' at '{self.place}': {why} Nothing was applied.")

    def check_after(self, decisive: str, value: Json) -> None:
        """Makes sure that `after`, which only repeats what the setting says, doesn't contradict it.

        Args:
            decisive: the setting's key that decides what will stand there.
            value: what will stand there.

        Raises:
            PenjingError: it does.
        """
        if self.after is not None and self.after != value:
            raise self.refused(
                f"'after' is {shown(self.after)}, but by '{decisive}' it will be {shown(value)}; make them equal, or leave "
                "'after' out."
            )

    def to_json(self) -> dict[str, Json]:
        """Returns it as plain JSON."""
        record = {
            "place": {"kind": self.place.kind, "path": self.place.path},
            "technique": self.technique,
            "setting": dict(self.setting),
            "before": self.before,
            "after": self.after,
        }
        return record | ({"found": dict(self.found)} if self.found else {})

    @classmethod
    def from_json(cls, record: Json) -> "Option":
        """Reads what `to_json` gave.

        Raises:
            PenjingError: it is no option.
        """
        return records.convert(record, cls, "option", deepest=MOST_NESTED)


@dataclass(frozen=True)
class Architecture:
    """What tells models of one architecture from others, whatever their weights are.

    Attributes:
        name: what the model is called, for errors; two models of one architecture may have different names.
        params: number of parameters, for errors.
        tensors: hash of the names and shapes of all parameters and buffers.
    """

    name: str
    params: int
    tensors: Name

    @classmethod
    def of(cls, name: str, tensors: Mapping[str, Tensor]) -> "Architecture":
        """Returns the architecture of a model with these parameters and buffers, by name."""
        shapes = json.dumps(sorted((path, list(tensor.shape)) for path, tensor in tensors.items()))
        own = {id(tensor): tensor.numel() for tensor in tensors.values() if isinstance(tensor, nn.Parameter)}
        return cls(name, sum(own.values()), hashlib.blake2b(shapes.encode(), digest_size=16).hexdigest())

    def __str__(self) -> str:
        return f"{self.name} ({self.params:,} parameters)"


@dataclass(frozen=True, repr=False)
class Plan(Sequence[Option]):
    """What is done to a graph, in this order.

    Attributes:
        options: what is done.
        architecture: that of the model before anything was done to it; None in a plan that was written by hand.
    """

    options: tuple[Option, ...] = ()
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        """Takes the options from any iterable."""
        object.__setattr__(self, "options", tuple(self.options))

    @overload
    def __getitem__(self, index: int) -> Option: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Option, ...]: ...

    def __getitem__(self, index: int | slice) -> Option | tuple[Option, ...]:
        return self.options[index]

    def __len__(self) -> int:
        return len(self.options)

    def __iter__(self) -> Iterator[Option]:
        return iter(self.options)

    def __repr__(self) -> str:
        counts = Counter(option.technique for option in self)
        named = ", ".join(f"{count} {technique}" for technique, count in counts.items())
        of = "" if self.architecture is None else f" for {self.architecture}"
        return f"Plan of {len(self)} options{of}{f': {named}' if named else ''}"

    def _repr_html_(self) -> str:
        rows = [
            (option.place.path, option.technique, *(_shown(value) for value in (option.before, option.after)),
             ", ".join(f"{name} {_shown(value)}" for name, value in option.setting.items()))
            for option in self
        ]  # fmt: skip
        return html_table(repr(self), ("Place", "Technique", "Before", "After", "Setting"), rows)

    def __add__(self, more: Iterable[Option]) -> "Plan":
        return self.having((*self.options, *more))

    def having(self, options: Iterable[Option]) -> "Plan":
        """Returns a plan for the same architecture with other options."""
        return Plan(tuple(options), self.architecture)

    def of(self, *techniques: str) -> "Plan":
        """Returns the options of these techniques alone."""
        return self.having(option for option in self if option.technique in techniques)

    def to_json(self) -> Json:
        """Returns it as plain JSON: a list of options, and with an architecture an object with both."""
        return [option.to_json() for option in self] if self.architecture is None else self.record()

    def record(self) -> dict[str, Json]:
        """Returns it as a plain JSON object, with the architecture even where that is None."""
        architecture = None if self.architecture is None else asdict(self.architecture)
        return {"architecture": architecture, "options": [option.to_json() for option in self]}

    @classmethod
    def from_json(cls, record: Json) -> "Plan":
        """Reads what `to_json` gave.

        Raises:
            PenjingError: it is no plan; says which part isn't.
        """
        if isinstance(record, list):
            record = {"options": record, "architecture": None}
        return records.convert(record, cls, "plan", whole=True, deepest=2 + MOST_NESTED)

    def write(self, path: Path | str) -> None:
        """Writes `plan.json`, whole or not at all."""
        atomic_write(path, json.dumps(self.to_json(), indent=2))

    @classmethod
    def read(cls, path: Path | str) -> "Plan":
        """Reads a `plan.json`. Nothing in it is run; a stranger's can do no harm.

        Raises:
            PenjingError: there is no such file, or it holds no plan.
        """
        path = Path(path)
        if not path.is_file():
            raise PenjingError(f"There is no file {path}.")
        try:
            return cls.from_json(records.read(path))
        except PenjingError as error:
            raise PenjingError(f"{path} holds no plan: {error}.") from error


def unknown_place(place: Place, places: Iterable[Place], of: str) -> PenjingError:
    """Returns the error for a place that a graph hasn't; it names the nearest one that it has.

    Args:
        place: that is missing.
        places: that are there.
        of: the graph's name.
    """
    there = list(places)
    alike = [one for one in there if one.kind == place.kind]
    near = difflib.get_close_matches(place.path, [one.path for one in alike], 1, 0.0)
    other = next((one for one in there if one.path == place.path), None)
    if other is not None:
        hint = f"; '{other.path}' is a {other.kind} there"
    else:
        hint = f"; the nearest is '{near[0]}'" if near else f"; it has no {place.kind} that could be meant"
    return PenjingError(
        f"The plan names the {place.kind} '{place.path}', which {of} hasn't{hint}. Nothing was applied."
    )


def _shown(value: Json) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
