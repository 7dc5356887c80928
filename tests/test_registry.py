import pytest

from penjing.errors import PenjingError
from penjing.registry import Registry


@pytest.fixture
def shapes():
    registry = Registry("shape")

    @registry.register(source="Euclid", needs=("data",), corners=0)
    def circle():
        """All points at one distance.

        And more.
        """
        return "round"

    @registry.register(source="Thales")
    def filter_():
        """Named after a builtin."""

    return registry


def test_a_function_is_found_under_its_own_name_with_what_is_known_of_it(shapes):
    entry = shapes["circle"]
    assert entry.function() == "round"
    assert (entry.name, entry.source, entry.needs) == ("circle", "Euclid", {"data"})
    assert entry.summary == "All points at one distance." and entry.traits == {"corners": 0}


def test_a_trailing_underscore_is_no_part_of_the_name(shapes):
    assert list(shapes) == ["circle", "filter"] and len(shapes) == 2
    assert "filter" in shapes and "filter_" not in shapes


def test_an_unknown_name_is_an_error_that_suggests_the_nearest(shapes):
    with pytest.raises(PenjingError, match=r"Unknown shape 'circel'\. Did you mean 'circle'\? Known: circle, filter\."):
        shapes["circel"]
    with pytest.raises(PenjingError, match=r"Unknown shape 'zzz'\. Known: circle, filter\."):
        shapes["zzz"]


def test_one_name_can_not_be_registered_twice(shapes):
    def circle():
        """Another."""

    with pytest.raises(ValueError, match="shape 'circle' is registered twice"):
        shapes.register(source="Apollonius")(circle)
