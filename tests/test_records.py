"""Records from files: whatever is wrong with one, a single kind of error says what, and where it stands."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penjing import records
from penjing.errors import PenjingError
from penjing.records import DEEPEST, Name, convert, parse, read


@dataclass(frozen=True)
class Layer:
    name: Name
    kind: Literal["linear", "conv"]
    rank: tuple[int, int] | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    layers: tuple[Layer, ...]
    metric: float | None
    seconds: dict[str, float]
    whole: bool = True
    steps: int = 0


class Names(tuple[str, ...]):
    """A class that reads itself."""

    @classmethod
    def from_json(cls, value: Any) -> "Names":
        return cls(convert(value, tuple[str, ...], "names"))


@dataclass(frozen=True)
class Named:
    names: Names
    tensor: torch.Tensor | None = None


RECORD: dict[str, Any] = {
    "layers": [{"name": "fc", "kind": "linear"}, {"name": "c", "kind": "conv", "rank": [2, 3], "setting": {"a": [1, None]}}],
    "metric": 0.5,
    "seconds": {"capture": 1.5, "choose": 2},
}  # fmt: skip


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    record = inner = json.loads(json.dumps(RECORD))
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


def test_a_record_becomes_its_dataclass_with_defaults_for_what_is_missing():
    made = convert(RECORD, Network)
    assert made == Network(
        (Layer("fc", "linear"), Layer("c", "conv", (2, 3), {"a": [1, None]})), 0.5, {"capture": 1.5, "choose": 2.0}
    )
    assert isinstance(made.layers, tuple) and isinstance(made.layers[1].rank, tuple)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("metric",), "good", "'net.metric' must be a number or null, and is 'good'"),
        (("metric",), True, "'net.metric' must be a number or null, and is True"),
        (("steps",), True, "'net.steps' must be a whole number, and is True"),
        (("steps",), 3.0, "'net.steps' must be a whole number, and is 3.0"),
        (("steps",), "3", "'net.steps' must be a whole number, and is '3'"),
        (("steps",), None, "'net.steps' must be a whole number, and is null"),
        (("whole",), 1, "'net.whole' must be true or false, and is 1"),
        (("layers",), {}, "'net.layers' must be a list, and is {}"),
        (("layers", 1), "conv", "'net.layers[1]' must be an object, and is 'conv'"),
        (("layers", 1, "name"), 7, "'net.layers[1].name' must be a string, and is 7"),
        (("layers", 1, "name"), "", "'net.layers[1].name' must be a string of length >= 1, and is ''"),
        (("layers", 0, "kind"), "lstm", "'net.layers[0].kind' must be 'conv' or 'linear', and is 'lstm'"),
        (("layers", 0, "kind"), " - at `$.x`", "'net.layers[0].kind' must be 'conv' or 'linear', and is ' - at `$.x`'"),
        (("layers", 0, "rank"), [1], "'net.layers[0].rank' must be a list"),
        (("layers", 0, "rank"), [1, "2"], "'net.layers[0].rank[1]' must be a whole number, and is '2'"),
        (("layers", 0, "setting"), "l2", "'net.layers[0].setting' must be an object, and is 'l2'"),
        (("seconds", "choose"), "long", "'net.seconds.choose' must be a number, and is 'long'"),
        (("more",), 1, "'net' has the unknown key 'more'; known are layers, metric, seconds, whole, steps"),
        (("layers", 1, "ranks"), 1, "'net.layers[1]' has the unknown key 'ranks'"),
        (("metric",), float("nan"), "'net.metric' is nan, which JSON can't hold; what was not measured is null"),
        (("layers", 1, "setting", "a"), [0, float("-inf")], "'net.layers[1].setting.a[1]' is -inf"),
        (("metric",), 10**400, "'net.metric' is a number of more than a hundred digits"),
        (("layers", 1, "setting", "a"), -(10**400), "'net.layers[1].setting.a' is a number of more than a hundred"),
        (
            ("layers", 1, "setting", "a"),
            torch.ones(2),
            "'net.layers[1].setting.a' is of the type Tensor, which JSON can't hold",
        ),
        (("steps",), np.int64(3), "'net.steps' is of the type int64, which JSON can't hold"),
        (("layers", 1, "setting"), {3: 4}, "'net.layers[1].setting' has the key 3, which is no string"),
        (("layers", 1, "setting", "a"), nested(DEEPEST), "is nested too deep"),
        (("layers", 1, "setting", "a"), nested(500), "is nested too deep"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_its_value(path, value, said):
    with pytest.raises(PenjingError) as caught:
        convert(changed(path, value), Network, "net")
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [None, 7, "text", [], [RECORD]])
def test_what_is_no_object_at_all_is_told(value):
    with pytest.raises(PenjingError, match=r"^it must be an object, and is "):
        convert(value, Network)


def test_a_missing_key_is_named():
    for key in ("layers", "metric", "seconds"):
        with pytest.raises(PenjingError, match=f"^'{key}' is missing$"):
            convert({name: value for name, value in RECORD.items() if name != key}, Network)
    with pytest.raises(PenjingError, match=r"^'net.layers\[1\].kind' is missing$"):
        convert(changed(("layers", 1), {"name": "c"}), Network, "net")


def test_a_key_with_a_default_may_be_missing_unless_the_record_must_be_whole():
    whole = RECORD | {"whole": False, "steps": 3}
    assert convert(whole, Network, whole=True).steps == 3, "within it, layers lack keys that have defaults"
    with pytest.raises(PenjingError, match=r"^'net\.steps' is missing$"):
        convert(RECORD | {"whole": False}, Network, "net", whole=True)


def test_keys_that_no_field_has_are_ignored_where_more_may_be_there():
    assert convert(changed(("layers", 1, "more"), 1) | {"more": 2}, Network, more=True) == convert(RECORD, Network)


def test_the_first_wrong_value_of_an_object_is_named_by_its_key():
    with pytest.raises(PenjingError, match=r"'\[1\].b' must be a whole number or null, and is 2.5"):
        convert([{"a": 1}, {"a": None, "b": 2.5, "c": 3.5}], list[dict[str, int | None]])
    with pytest.raises(PenjingError, match=r"'b.name' is missing"):
        convert({"a": {"name": "x", "kind": "conv"}, "b": {"kind": "conv"}}, dict[str, Layer])


def test_a_class_that_reads_itself_tells_its_place_and_what_it_found():
    assert convert({"names": ["a", "b"]}, Named).names == Names(("a", "b"))
    with pytest.raises(PenjingError, match=r"^'named.names': 'names\[1\]' must be a string, and is 3$"):
        convert({"names": ["a", 3]}, Named, "named")


def test_a_class_of_which_nothing_stands_in_files_is_refused_there():
    assert convert({"names": ["a"], "tensor": None}, Named) == convert({"names": ["a"]}, Named)
    with pytest.raises(PenjingError, match=r"^'named.tensor': no Tensor stands in a file$"):
        convert({"names": ["a"], "tensor": [1.0]}, Named, "named")


def test_an_error_is_short_and_on_one_line_whatever_a_stranger_wrote():
    for record in (
        changed(("metric",), "x\n" * 10**6),
        changed(("layers", 0, "kind"), "x\n" * 10**6),
        changed(("seconds", "x\n" * 10**6), "y\n" * 10**6),
        changed(("seconds", "x\n" * 10**6), float("nan")),
        changed(("x\n" * 10**6,), 1),
    ):
        with pytest.raises(PenjingError) as caught:
            convert(record, Network)
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_numbers_of_other_libraries_that_are_python_floats_become_plain_ones():
    made = convert(RECORD | {"metric": np.float64(0.25)}, Network)
    assert made.metric == 0.25 and type(made.metric) is float


def test_names_that_are_not_utf8_on_disk_survive():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    text = json.dumps(changed(("layers", 0, "setting"), {name: name}) | {"seconds": {name: 1.0}}).encode()
    made = convert(parse(text), Network)
    assert made.layers[0].setting == {name: name} and made.seconds == {name: 1.0}
    with pytest.raises(PenjingError, match=r"unknown key 'caf\\udce9'"):
        convert(RECORD | {name: 1}, Network)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(10**99), 10**99) | st.text() | st.floats(-1e99, 1e99),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
))  # fmt: skip
def test_plain_values_come_back_from_their_text_and_only_the_right_ones_become_a_record(value):
    assert convert(parse(json.dumps(value).encode()), Any) == value
    try:
        convert(value, Network)
    except PenjingError:
        return
    raise AssertionError(f"{value} is no network")


# Texts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b'{"a": 1} {"b": 2}', "is no JSON"),
        (b"\0\xff", "is no JSON: UnicodeDecodeError"),
        (b'{"a": "\xff"}', "is no JSON: UnicodeDecodeError"),
        ('{"a": 1}'.encode("utf-16"), "is no JSON: UnicodeDecodeError"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b"[-Infinity]", "-Infinity is no number of JSON"),
        (b"1" + b"0" * 5000, "is no JSON"),  # more digits than Python reads
        (b"[" * 100_000, "is no JSON: RecursionError"),
        (b'{"a":' * 100_000, "is no JSON: RecursionError"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' stands twice in one object"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(PenjingError) as caught:
        read(tmp_path / "a.json")
    assert said in str(caught.value)


def test_numbers_beyond_floats_are_read_and_refused_by_what_takes_them():
    with pytest.raises(PenjingError, match=r"'metric' is inf"):
        convert(parse(b'{"layers": [], "seconds": {}, "metric": 1e999}'), Network)
    with pytest.raises(PenjingError, match=r"'metric' is a number of more than a hundred digits"):
        convert(parse(b'{"layers": [], "seconds": {}, "metric": 1' + b"0" * 400 + b"}"), Network)


def test_a_mark_of_the_encoding_in_front_is_no_damage():
    assert parse(b'\xef\xbb\xbf{"a": [1]}') == {"a": [1]}


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(PenjingError, match=r"^it can't be read: No such file"):
        read(tmp_path / "a.json")
    with pytest.raises(PenjingError, match=r"^it can't be read: Is a directory"):
        read(tmp_path)


def test_a_text_of_many_bytes_or_values_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(records.json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**40)  # a terabyte of zeros, of which the disk holds none
    with pytest.raises(PenjingError, match=r"^it is larger than 67,108,864 bytes$"):
        read(tmp_path / "a.json")
    with pytest.raises(PenjingError, match=r"^graph\.json holds more than 4,194,304 values$"):
        parse(b"[" + b"[]," * (records.MOST_VALUES // 2) + b"[]]", "graph.json")
