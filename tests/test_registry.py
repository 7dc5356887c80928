from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Literal

import pytest

from penjing.errors import PenjingError
from penjing.registry import Chosen, Entry, NumberedEntry, OwnNumber, Registry


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


# Numbers in names

NUMBERS = {
    "share": OwnNumber("share", default=0.5, lowest=0.0, highest=1.0),
    "rounds": OwnNumber("number of rounds", default=5, lowest=1),
    "alpha": OwnNumber("α", default=0.2, lowest=0.0, above=True),
    "probability": OwnNumber("probability", default=0.2, lowest=0.0, highest=1.0, above=True),
    "plain": None,
}


@pytest.fixture(scope="module")
def numbered():
    registry = Registry("way", NumberedEntry)
    for name, number in NUMBERS.items():
        registry.register(source="Peano", name=name, number=number)(square)
    return registry


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("share", 0.5), ("share:0", 0.0), ("share:1", 1.0), ("share:1e-3", 0.001), ("rounds", 5), ("rounds:1", 1),
        ("rounds:12345", 12345), ("alpha", 0.2), ("alpha:1e-9", 1e-9), ("probability:1", 1.0), ("plain", 0.0),
    ],
)  # fmt: skip
def test_a_number_is_read_from_the_name_or_is_the_methods_default(numbered, name, number):
    chosen = Chosen.read("way", name, numbered)
    assert (chosen.name, chosen.entry, chosen.number) == (name, numbered[name.partition(":")[0]], number)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("share:1.1", "share:-1", "share:nan", "share:", "share:half"), "the share, a number from 0.0 to 1.0."),
        (("rounds:0", "rounds:2.5", "rounds:inf"), "the number of rounds, a whole number of at least 1."),
        (("alpha:0", "alpha:-1", "alpha:inf", "alpha:nan"), "the α, a number above 0."),
        (("probability:0", "probability:1.01"), "the probability, a number above 0 and at most 1."),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_with_what_is_allowed(numbered, names, says):
    for name in names:
        with pytest.raises(PenjingError) as raised:
            Chosen.read("way", name, numbered)
        assert str(raised.value) == f"way='{name}': what follows the colon is {says}"


@pytest.mark.parametrize(
    ("name", "says"), [("plain:1", "way='plain:1': 'plain' takes no number"), ("shaer:1", "Did you mean 'share'")]
)
def test_a_number_where_none_belongs_and_an_unknown_name_are_refused(numbered, name, says):
    with pytest.raises(PenjingError, match=says):
        Chosen.read("way", name, numbered)
