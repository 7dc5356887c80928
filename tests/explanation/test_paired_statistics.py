"""Intervals and tests of shares, against what a thousand drawn samples do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penjing.explanation._statistics import by_chance, change, clearly, share


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_what_was_measured_and_stays_between_the_least_and_the_most(samples, data):
    hits = data.draw(st.integers(0, samples))
    found = share(hits, samples)
    assert 0 <= found.low <= found.value == hits / samples <= found.high <= 1
    gained = data.draw(st.integers(0, samples - hits))
    moved = change(hits, gained, samples)
    assert -1 <= moved.low <= moved.value == (gained - hits) / samples <= moved.high <= 1


@pytest.mark.parametrize(("samples", "lost", "gained"), [(40, 0.05, 0.05), (300, 0.03, 0.01), (1000, 0.2, 0.1)])
def test_the_true_change_lies_in_nineteen_of_twenty_intervals(samples, lost, gained):
    generator = np.random.default_rng(0)
    draws = generator.multinomial(samples, [lost, gained, 1 - lost - gained], size=1000)
    held = [(one := change(int(a), int(b), samples)).low <= gained - lost <= one.high for a, b, _ in draws]
    assert 0.93 <= np.mean(held) <= 0.99


def test_chance_is_that_of_an_even_coin():
    assert by_chance(0, 0) == 1.0
    assert by_chance(9, 1) == pytest.approx(2 * stats.binom.cdf(1, 10, 0.5))


def test_many_tests_together_hold_for_fewer_classes():
    chances = [0.04, *[0.5] * 30]
    assert clearly([0.04]) == [True] and not any(clearly(chances)) and clearly([]) == []
    assert clearly([1e-6, *chances])[:2] == [True, False]
