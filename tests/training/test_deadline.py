"""How many steps a training is planned to take before a deadline."""

import time

import pytest

from penjing.training import deadline as plan


@pytest.fixture
def at_zero(monkeypatch):
    """The clock stands at 0."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)


def test_nine_tenths_of_the_time_that_is_left_are_planned(at_zero):
    assert plan.fitting(1000, 100.0, seconds=1.0) == 90
    assert plan.fitting(50, 100.0, seconds=1.0) == 50
    assert plan.fitting(1000, None, seconds=1.0) == 1000


def test_a_training_whose_steps_take_longer_than_was_tried_is_shortened(at_zero):
    assert plan.shortened(1000, 20, 100.0, seconds=1.0, counted=plan.TRUSTED) == 20 + 90


def test_a_few_slow_steps_shorten_nothing(at_zero):
    assert plan.shortened(1000, 5, 100.0, seconds=1.0, counted=plan.TRUSTED - 1) == 1000


def test_a_training_that_ends_in_time_is_left_alone(at_zero):
    assert plan.shortened(119, 20, 100.0, seconds=1.0, counted=plan.TRUSTED) == 119
    assert plan.shortened(1000, 20, None, seconds=1.0, counted=plan.TRUSTED) == 1000
