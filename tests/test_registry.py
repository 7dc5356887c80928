from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Literal

import pytest

from penjing.errors import PenjingError
from penjing.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Shape(Entry[Callable[[], str]]):
    """A registered shape."""

    corners: int
    edges: tuple[Literal["straight", "curved"], ...] = ("straight",)
    line: Literal["solid", "dashed"] = "solid"


@pytest.fixture
def shapes():
    registry = Registry("shape", Shape)

    @registry.register(source="Euclid", needs={"data"}, corners=0, edges=("curved",))
    def circle():
        """All points at one distance.

        And more.
        """
        return "round"

    @registry.register(source="Thales", corners=3)
    def filter_():
        """Named after a builtin."""

    return registry


def square():
    """Four sides alike."""


def test_a_function_is_found_under_its_own_name_with_what_is_known_of_it(shapes):
    entry = shapes["circle"]
    assert entry.function() == "round"
    assert (entry.name, entry.source, entry.needs) == ("circle", "Euclid", {"data"})
    assert entry.summary == "All points at one distance."


def test_an_entry_is_the_familys_own_frozen_record(shapes):
    entry = shapes["circle"]
    assert isinstance(entry, Shape) and (entry.corners, entry.edges, entry.line) == (0, ("curved",), "solid")
    with pytest.raises(FrozenInstanceError):
        entry.corners = 1


def test_a_trailing_underscore_is_no_part_of_the_name(shapes):
    assert list(shapes) == ["circle", "filter"] and len(shapes) == 2
    assert "filter" in shapes and "filter_" not in shapes


def test_a_name_of_its_own_takes_the_place_of_the_functions(shapes):
    shapes.register(source="Euclid", corners=4, name="n:m")(square)
    assert shapes["n:m"].name == "n:m" and "square" not in shapes


def test_an_unknown_name_is_an_error_that_suggests_the_nearest(shapes):
    with pytest.raises(PenjingError, match=r"Unknown shape 'circel'\. Did you mean 'circle'\? Known: circle, filter\."):
        shapes["circel"]
    with pytest.raises(PenjingError, match=r"Unknown shape 'zzz'\. Known: circle, filter\."):
        shapes["zzz"]


def test_one_name_can_not_be_registered_twice(shapes):
    def circle():
        """Another."""

    with pytest.raises(ValueError, match="shape 'circle' is registered twice"):
        shapes.register(source="Apollonius", corners=0)(circle)
    assert shapes["circle"].source == "Euclid"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "Euclid"}, "missing 1 required keyword-only argument: 'corners'"),
        ({"corners": 4}, "missing 1 required keyword-only argument: 'source'"),
        ({"source": "Euclid", "corners": 4, "conrers": 4}, "unexpected keyword argument 'conrers'"),
    ],
)
def test_a_missing_or_unknown_field_is_an_error_and_registers_nothing(shapes, fields, message):
    with pytest.raises(TypeError, match=message):
        shapes.register(**fields)(square)
    assert "square" not in shapes


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("line", "dotted", "dotted"),
        ("edges", ("straight", "wavy"), "wavy"),
        ("needs", {"data", "luck"}, "luck"),
        ("needs", "data", "[dat]"),  # a string where a set was meant, not one of the known needs
    ],
)
def test_a_value_that_the_fields_type_does_not_list_is_an_error_and_registers_nothing(shapes, field, value, wrong):
    with pytest.raises(ValueError, match=f"'square' has {field}='?{wrong}'?"):
        shapes.register(**{"source": "Euclid", "corners": 4, field: value})(square)
    assert "square" not in shapes


def test_a_function_without_a_docstring_is_an_error_and_registers_nothing(shapes):
    def nothing(): ...

    with pytest.raises(ValueError, match="shape 'nothing' has no docstring"):
        shapes.register(source="Euclid", corners=0)(nothing)
    assert "nothing" not in shapes


def test_what_a_method_needs_can_not_change_afterwards(shapes):
    needs = {"data"}
    shapes.register(source="Euclid", corners=4, needs=needs)(square)
    needs.add("labels")
    assert shapes["square"].needs == {"data"}
