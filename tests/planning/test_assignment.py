"""The exact choice of options that cost together, against trying every choice."""

import ctypes
import os

import numpy as np
import pytest
import scipy.optimize
from choices import every
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.planning.assignment import Assignment, Joint, Unreachable, assign


@st.composite
def problems(draw):
    counts = {f"p{i}": draw(st.integers(1, 3)) for i in range(draw(st.integers(1, 5)))}
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    joints = [Joint((place,), {"damage": seed.uniform(0, 1, count)}) for place, count in counts.items()]
    for _ in range(draw(st.integers(1, 5))):
        places = tuple(seed.permutation(list(counts))[: draw(st.integers(1, 3))].tolist())
        shape = tuple(counts[place] for place in places)
        joints.append(
            Joint(places, {"ms": seed.uniform(0, 1, shape), "bytes": seed.integers(0, 9, shape).astype(float)})
        )
    if draw(st.booleans()):
        joints.append(Joint((), {"ms": np.array(seed.uniform()), "damage": np.array(seed.uniform())}))
    taken = [(place, int(seed.integers(count))) for place, count in counts.items()]
    implied = [tuple(taken[:2])] if len(taken) > 1 and draw(st.booleans()) else []
    return Assignment(counts, joints, implied, {"ms": 0.25})


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems(), st.floats(0, 1))
def test_it_finds_what_trying_every_choice_finds(problem, share):
    times = sorted(problem.total("ms", taken) for taken in every(problem))
    limits = {"ms": times[int(share * (len(times) - 1))], "bytes": 15.0}
    keeping = [t for t in every(problem) if all(problem.total(name, t) <= limit for name, limit in limits.items())]
    if not keeping:
        with pytest.raises(Unreachable) as error:
            assign(problem, limits)
        for name in limits:
            assert error.value.least[name] == pytest.approx(min(problem.total(name, t) for t in every(problem)))
        return
    found = assign(problem, limits, gap=0.0)
    assert problem.allows(found.taken)
    assert all(problem.total(name, found.taken) <= limit for name, limit in limits.items())
    best = min(problem.total("damage", t) for t in keeping)
    assert found.totals["damage"] == pytest.approx(best, rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(problems(), st.floats(0.1, 2))
def test_any_sum_can_be_the_least_under_a_limit_on_the_damage(problem, most):
    keeping = [taken for taken in every(problem) if problem.total("damage", taken) <= most]
    if not keeping:
        with pytest.raises(Unreachable):
            assign(problem, {"damage": most}, "ms")
        return
    found = assign(problem, {"damage": most}, "ms", gap=0.0)
    assert found.totals["ms"] == pytest.approx(min(problem.total("ms", t) for t in keeping), abs=1e-6)


def test_an_error_gives_the_least_possible_of_each_limit():
    problem = Assignment({"a": 2}, [Joint(("a",), {"ms": np.array([3.0, 2.0]), "damage": np.zeros(2)})])
    with pytest.raises(Unreachable, match=r"2 ms of 1"):
        assign(problem, {"ms": 1.0})


def test_where_there_is_nothing_to_choose_the_error_gives_the_sums_that_are_limited_alone():
    with pytest.raises(Unreachable, match=r"3 ms of 1") as error:
        assign(Assignment({}, [], constants={"ms": 3.0}), {"ms": 1.0})
    assert error.value.least == {"ms": 3.0}


def test_nothing_to_choose_is_nothing_chosen():
    assert assign(Assignment({}, []), {}).taken == {}
    with pytest.raises(Unreachable):
        assign(Assignment({}, [], constants={"ms": 2.0}), {"ms": 1.0})


def test_what_the_library_prints_past_python_does_not_reach_standard_output(monkeypatch, capfd):
    solve = scipy.optimize.milp

    def noisy(*given, **options):
        os.write(1, b"HighsMipSolverData")
        ctypes.CDLL(None).printf(b"buffered")
        return solve(*given, **options)

    monkeypatch.setattr(scipy.optimize, "milp", noisy)
    print("before")
    assign(Assignment({"a": 2}, [Joint(("a",), {"damage": np.array([0.0, 1.0])})]), {})
    print("behind")
    assert capfd.readouterr().out == "before\nbehind\n"
