"""The curve from what kernels promise to what whole models take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.planning.latency.curve import LatencyCurve

POINTS = st.lists(
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.1, 1)),
    min_size=1,
    max_size=6,
    unique_by=lambda p: p[0],
)


def curve(points):
    found = LatencyCurve()
    for point in points:
        found.add(*point)
    return found


def test_one_plan_sets_the_scale():
    found = curve([(4.0, 0.5)])
    assert found.latency(2.0) == pytest.approx(0.25) and found.latency(8.0) == pytest.approx(1.0)
    assert found.kernels(0.25) == pytest.approx(2.0) and found.kernels(2.0) == pytest.approx(16.0)


def test_between_two_plans_it_is_straight():
    found = curve([(4.0, 0.5), (2.0, 0.4)])
    assert found.latency(3.0) == pytest.approx(0.45) and found.kernels(0.45) == pytest.approx(3.0)
    assert found.latency(1.0) == pytest.approx(0.2)


def test_measurements_that_contradict_each_other_count_by_their_weight():
    found = curve([(2.0, 0.6, 1.0), (4.0, 0.3, 0.5)])
    assert found.latency(2.0) == found.latency(4.0) == pytest.approx(0.5)
    assert found.kernels(0.5) == pytest.approx(4.0)  # of equal latencies that with the most work


@given(POINTS, st.floats(0.01, 30))
def test_it_never_falls_and_its_inverse_is_its_inverse(points, at):
    found = curve(points)
    assert found.latency(0.0) == 0.0
    assert found.latency(at) <= found.latency(at * 1.1) + 1e-12
    latency = found.latency(at)
    assert found.kernels(latency) >= at * (1 - 1e-9)
    assert found.latency(found.kernels(latency)) == pytest.approx(latency, rel=1e-6)


def test_a_search_that_measures_what_it_expects_closes_in_on_a_limit_from_both_sides():
    def takes(kernels):
        return 0.1 + 0.02 * kernels**1.3

    found, limit = LatencyCurve(), 0.3
    found.add(10.0, takes(10.0), 0.1)
    for _ in range(6):
        at = found.kernels(limit)
        found.add(at, takes(at))
    assert takes(found.kernels(limit)) == pytest.approx(limit, rel=0.01)
