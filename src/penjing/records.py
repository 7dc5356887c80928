"""Records that come from files: the text of a JSON file to plain values, and plain values to frozen dataclasses.

msgspec compares the values with the types of a dataclass's fields. What JSON and msgspec leave open is decided here, once:
how large a text may be, that no key stands twice, that numbers are finite, that nothing is nested without end, and which keys
may be there. An error names the place in the record and what stands there: `'plan[3].setting' must be an object, and is 7`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from penjing.checks import shown
from penjing.damage import refusing
from penjing.errors import PenjingError

T = TypeVar("T")
Name = Annotated[str, msgspec.Meta(min_length=1)]
"""The type of a field that holds a string which isn't empty."""

LARGEST = 64 * 2**20  # bytes of one JSON text
MOST_VALUES = 2**22
"""Values in one JSON text. Each takes up to some 100 bytes of memory; the nodes of a network take 40 or so."""
DEEPEST = 32  # levels of lists and objects within a record: a report has 8
BEYOND = 10**100  # no measurement has as many digits; sums and ratios of smaller numbers stay finite
LONGEST_PATH = 100  # characters of a place in a record that an error repeats: its end tells more than its beginning


# From text to plain values


def read(path: Path) -> Any:
    """Returns what a JSON file holds, as plain values.

    Raises:
        PenjingError: the file can't be read, or `parse` refuses its text. The message doesn't name the file.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise PenjingError(f"it can't be read: {error.strerror or error}") from error
    return parse(content)


def parse(content: bytes, name: str = "it") -> Any:
    """Returns the plain values of a JSON text in UTF-8.

    Args:
        content: the text.
        name: of the text, for errors.

    Raises:
        PenjingError: the text is too large or holds too many values (found before it is parsed), is no JSON, is nested beyond
            the stack, has a key twice in one object, or holds NaN or an infinity.
    """
    check_size(content, name)
    with refusing(f"{name} is no JSON"):
        text = content.decode("utf-8-sig")  # some editors put a mark in front
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)


def check_size(content: bytes, name: str = "it") -> None:
    """Refuses a JSON text that would take too much memory, before it is parsed.

    Raises:
        PenjingError: it is too large, or holds too many values.
    """
    if len(content) > LARGEST:
        raise PenjingError(f"{name} is larger than {LARGEST:,} bytes")
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise PenjingError(f"{name} holds more than {MOST_VALUES:,} values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise PenjingError(f"the key {shown(key)} stands twice in one object")
        record[key] = value
    return record


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


# From plain values to records


def convert(
    value: Any, kind: type[T], name: str = "", *, more: bool = False, whole: bool = False, deepest: int = DEEPEST
) -> T:
    """Returns a value of a type from plain values: a dataclass from an object, a tuple or a list from a list.

    A field with a default may be missing. A class that is neither a dataclass nor a built-in type is made by its own class
    method `from_json`.

    Args:
        value: what a JSON file holds; tuples count as lists.
        kind: the type, which consists of dataclasses and built-in types.
        name: of the record, with which errors begin the places in it.
        more: whether keys are ignored that no field has.
        whole: whether the object itself must have a key for every field. Objects within it needn't.
        deepest: how many levels of lists and objects there may be.

    Raises:
        PenjingError: a value is none of JSON's, is nested too deep, or isn't what the type says; a key is missing or unknown.
    """
    plain = _plain(value, name, deepest)
    try:
        made = msgspec.convert(plain, kind, strict=True, dec_hook=_from_json)
    except msgspec.ValidationError as error:
        raise PenjingError(_in_words(str(error), plain, name, kind)) from error
    except UnicodeEncodeError as error:  # keys of dataclasses are compared in UTF-8, in which surrogates have no place
        raise PenjingError(f"{_at(name)} has the unknown key {shown(error.object)}") from error
    if whole and is_dataclass(made):
        missing = [one.name for one in fields(made) if one.name not in plain]
        if missing:
            raise PenjingError(f"{_at(_join(name, missing[0]))} is missing")
    if not more:
        _check_keys(plain, made, name)
    return made


def _plain(value: Any, path: str, levels: int) -> Any:
    """Returns a copy of nothing but JSON's own types.

    Raises:
        PenjingError: a part of the value is none of these, is a number that nothing measures, or is nested too deep.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise PenjingError(f"{_at(path)} is {float(value)}, which JSON can't hold; what was not measured is null")
        if not -BEYOND < value < BEYOND:
            raise PenjingError(f"{_at(path)} is a number of more than a hundred digits, which nothing measures")
        return int(value) if isinstance(value, int) else float(value)
    if not isinstance(value, list | tuple | Mapping):
        raise PenjingError(f"{_at(path)} is of the type {type(value).__name__}, which JSON can't hold")
    if levels == 0:
        raise PenjingError(f"{_at(path)} is nested too deep")
    if not isinstance(value, Mapping):
        return [_plain(item, f"{path}[{index}]", levels - 1) for index, item in enumerate(value)]
    for key in value:
        if not isinstance(key, str):
            raise PenjingError(f"{_at(path)} has the key {shown(key)}, which is no string")
    return {key: _plain(item, _join(path, key), levels - 1) for key, item in value.items()}


def _from_json(kind: Any, value: Any) -> Any:
    if not hasattr(kind, "from_json"):
        raise ValueError(f"no {kind.__name__} stands in a file")
    try:
        return kind.from_json(value)
    except PenjingError as error:
        raise ValueError(str(error)) from error  # msgspec adds the place where the value stands


def _check_keys(value: Any, made: Any, path: str) -> None:
    """Raises if an object has keys that the dataclass made of it has no fields for."""
    if is_dataclass(made) and not isinstance(made, type):
        names = [one.name for one in fields(made)]
        if odd := sorted(value.keys() - set(names)):
            raise PenjingError(f"{_at(path)} has the unknown key {shown(odd[0])}; known are {', '.join(names)}")
        for name in value:
            _check_keys(value[name], getattr(made, name), _join(path, name))
    elif isinstance(made, list | tuple):
        for index, (item, one) in enumerate(zip(value, made, strict=True)):
            _check_keys(item, one, f"{path}[{index}]")
    elif isinstance(made, dict):
        for key in value:
            _check_keys(value[key], made[key], _join(path, key))


# What is wrong, in words

_TYPES = {
    "int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip


def _in_words(error: str, value: Any, name: str, kind: Any) -> str:
    """Says what msgspec found wrong with a value, where it stands, and what stands there.

    Args:
        error: msgspec's message, such as "Expected `int`, got `str` - at `$.steps[3].rank`".
        value: that was to be converted.
        name: of the value.
        kind: the type that it was to become.
    """
    placed = re.fullmatch(r"(.*) - at `\$([^`]*)`", error, re.DOTALL)
    said, steps = (placed[1], re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", placed[2])) if placed else (error, [])
    keys = [field or index for field, index in steps]
    missing = re.fullmatch(r"Object missing required field `(\w+)`", said)
    expected = re.fullmatch(r"Expected `([^`]+)`(.*?)(?:, got `(\w+)`)?", said)

    def is_wrong(part: Any) -> bool:
        if missing:
            return isinstance(part, dict) and missing[1] not in part
        return not (expected and expected[3]) or expected[3] == _name_of_type(part)

    where, there = _found(value, keys, is_wrong) or ("", None)
    if missing:
        return f"{_at(_join(name + where, missing[1]).lstrip('.'))} is missing"
    at, instead = _at((name + where).lstrip(".")), "null" if there is None else shown(there)
    if expected:
        names = expected[1].split(" | ")
        types = [_TYPES.get(one, one) for one in names if not (one == "int" and "float" in names)]
        return f"{at} must be {' or '.join(types)}{expected[2]}, and is {instead}"
    if allowed := _allowed(inspect.type_info(kind), keys):
        return f"{at} must be {' or '.join(map(repr, allowed))}, and is {instead}"
    return f"{at}: {said}"


def _found(value: Any, keys: Sequence[str], is_wrong: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Returns the place and the value at the end of a path; None where there is none.

    Args:
        value: that the path leads into.
        keys: names of fields, indices, and "..." for some key of an object, which msgspec doesn't name.
        is_wrong: tells a value that may be the one: of an object's keys, the first with such a value is the one.
    """
    if not keys:
        return ("", value) if is_wrong(value) else None
    first, *rest = keys
    if isinstance(value, list):
        inner = _found(value[int(first)], rest, is_wrong)
        return None if inner is None else (f"[{first}]{inner[0]}", inner[1])
    for key in value if first == "..." else (first,):
        if (inner := _found(value[key], rest, is_wrong)) is not None:
            return f".{key}{inner[0]}", inner[1]
    return None


def _name_of_type(value: Any) -> str:
    return {"dict": "object", "list": "array", "NoneType": "null"}.get(type(value).__name__, type(value).__name__)


def _allowed(kind: inspect.Type, keys: Sequence[str]) -> tuple[Any, ...]:
    """Returns the values that a type allows at the end of a path, where the type lists them."""
    if isinstance(kind, inspect.UnionType):
        return tuple(value for one in kind.types for value in _allowed(one, keys))
    if not keys:
        return kind.values if isinstance(kind, inspect.LiteralType) else ()
    first, *rest = keys
    inner: list[inspect.Type] = []
    if isinstance(kind, inspect.DataclassType):
        inner = [field.type for field in kind.fields if field.name == first]
    elif isinstance(kind, inspect.DictType):
        inner = [kind.value_type]
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        inner = [kind.item_type]
    elif isinstance(kind, inspect.TupleType):
        inner = [kind.item_types[int(first)]]
    return tuple(value for one in inner for value in _allowed(one, rest))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _at(path: str) -> str:
    """Returns a place in a record for an error: quoted, on one line, and not too long."""
    return repr(path if len(path) <= LONGEST_PATH else f"...{path[3 - LONGEST_PATH :]}") if path else "it"
