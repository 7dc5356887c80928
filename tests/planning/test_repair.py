"""Moving choices onto the limits, against all choices and sums made anew."""

from choices import every
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_costs import OPTIONS, limits_of, made_up_costs

from penjing.planning.repair import Repair
from penjing.planning.rivals import changed

SEEDS, SHARES, CHOICES = st.integers(0, 10**6), st.floats(0.4, 1.1), st.integers(0, 10**6)


def damage(problem, taken):
    return problem.total("damage", taken)


def some_choice(problem, number):
    allowed = list(every(problem))
    return allowed[number % len(allowed)]


@settings(max_examples=60, deadline=None)
@given(SEEDS, SHARES, CHOICES)
def test_what_is_repaired_keeps_what_goes_with_what_and_comes_no_farther_from_the_limits(seed, share, number):
    problem = made_up_costs(seed)
    limits = limits_of(problem, share)
    repair, before = Repair(problem, limits), some_choice(problem, number)
    after = repair(before)
    assert set(after) == set(OPTIONS) and problem.allows(after)
    assert repair.excess(after) <= repair.excess(before)
    if repair.excess(after) == 0:
        assert problem.total("ms", after) <= limits["ms"]


@settings(max_examples=60, deadline=None)
@given(SEEDS, SHARES, CHOICES)
def test_a_choice_within_the_limits_stays_within_them_and_does_no_more_damage(seed, share, number):
    problem = made_up_costs(seed)
    repair, before = Repair(problem, limits_of(problem, share)), some_choice(problem, number)
    if repair.excess(before) == 0:
        after = repair(before)
        assert repair.excess(after) == 0 and damage(problem, after) <= damage(problem, before)


@settings(max_examples=60, deadline=None)
@given(SEEDS, SHARES, CHOICES)
def test_no_single_change_betters_what_was_repaired_and_repairing_it_again_changes_nothing(seed, share, number):
    problem = made_up_costs(seed)
    repair = Repair(problem, limits_of(problem, share))
    after = repair(some_choice(problem, number))
    assert repair(after) == after
    now = repair.excess(after), damage(problem, after)
    for place, count in OPTIONS.items():
        for option in range(count):
            other = changed(problem, after, (place, option))
            if other is not None:
                assert (repair.excess(other), damage(problem, other)) >= (now[0] - 1e-9, now[1] - 1e-9)


def test_a_limit_that_nothing_keeps_is_come_near_to():
    problem = made_up_costs(0)
    repair = Repair(problem, {"ms": 0.1})
    whole = dict.fromkeys(OPTIONS, 0)
    assert 0 < repair.excess(repair(whole)) < repair.excess(whole)
