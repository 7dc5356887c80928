"""What is done where, as data: a place, an option for it, and a plan of options. It reads and writes `plan.json`.

Nothing here is a sentence, and nothing parses one: `penjing.report.words` makes sentences for people.
"""

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from penjing.damage import refusing
from penjing.errors import PenjingError
from penjing.files import atomic_write

Json = Any
"""What JSON can hold: None, booleans, numbers, strings, lists and objects with strings as keys."""

Kind = Literal["group", "branch", "weight", "value"]
KINDS: tuple[str, ...] = get_args(Kind)
MOST_NESTED = 8  # a setting is flat, or nearly so; deeper nesting in a file is no plan


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
    technique: str
    setting: Mapping[str, Json]
    before: Json = None
    after: Json = None
    found: Mapping[str, Json] = field(default_factory=dict)

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
        if not isinstance(record, dict):
            raise PenjingError(f"a step of the plan is {_short(record)}, not an object")
        place, technique = record.get("place"), record.get("technique")
        if not isinstance(technique, str) or not technique:
            raise PenjingError(f"a step of the plan has the technique {_short(technique)}, which is no name")
        fits = isinstance(place, dict) and place.get("kind") in KINDS and isinstance(place.get("path"), str)
        if not fits:
            raise PenjingError(
                f"a step of the plan has the place {_short(place)}; a place is an object of a 'kind' ({', '.join(KINDS)}) "
                "and a 'path'"
            )
        for key in ("setting", "found"):
            if not isinstance(record.get(key, {}), dict):
                raise PenjingError(f"the {key} of the step at {_short(place['path'])} is no object")
        known = {"place", "technique", "setting", "before", "after", "found"}
        if "setting" not in record or not record.keys() <= known:
            odd = sorted(map(str, record.keys() - known)) or ["no 'setting'"]
            raise PenjingError(f"the step at {_short(place['path'])} has {_short(odd[0])}")
        check_json({key: record.get(key) for key in ("setting", "before", "after", "found")})
        return cls(
            Place(place["kind"], place["path"]), technique, record["setting"], record.get("before"), record.get("after"),
            record.get("found", {}),
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is done to a graph, in this order."""

    options: tuple[Option, ...] = ()

    def __iter__(self) -> Iterator[Option]:
        return iter(self.options)

    def __len__(self) -> int:
        return len(self.options)

    def __getitem__(self, position: int) -> Option:
        return self.options[position]

    def __add__(self, more: Iterable[Option]) -> "Plan":
        return Plan((*self.options, *more))

    def of(self, *techniques: str) -> "Plan":
        """Returns the options of these techniques alone."""
        return Plan(tuple(option for option in self.options if option.technique in techniques))

    def to_json(self) -> list[dict[str, Json]]:
        """Returns it as plain JSON."""
        return [option.to_json() for option in self.options]

    @classmethod
    def from_json(cls, records: Json) -> "Plan":
        """Reads what `to_json` gave.

        Raises:
            PenjingError: it is no plan; says which part isn't.
        """
        if not isinstance(records, list):
            raise PenjingError(f"a plan is a list of steps, not {_short(records)}")
        return cls(tuple(map(Option.from_json, records)))

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
            with refusing("it is no JSON"):
                records = json.loads(path.read_text())
            return cls.from_json(records)
        except PenjingError as error:
            raise PenjingError(f"{path} holds no plan: {error}.") from error


def check_json(value: Json, depth: int = 0) -> None:
    """Checks that a value is plain JSON of few levels.

    Raises:
        PenjingError: it isn't.
    """
    if depth > MOST_NESTED:
        raise PenjingError(f"a setting is nested more than {MOST_NESTED} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise PenjingError(f"a setting has the key {_short(key)}, which is no string")
            check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_json(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise PenjingError(f"a setting holds {value}, which is no JSON")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise PenjingError(f"a setting holds {_short(value)}, which is no JSON")


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


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
