"""How a time limit is shared out among the stages; time is made up here."""

import math
import time as real

import pytest

from made_time import Time
from penjing.run.clock import Clock, Known, seconds_until

KNOWN = Known(1.0, 4.0)


@pytest.fixture
def time(monkeypatch):
    made = Time()
    monkeypatch.setattr("penjing.run.clock.time", made)
    return made


def test_a_command_begins_when_its_clock_is_made_unless_another_beginning_is_given():
    before = real.monotonic()
    began = Clock(minutes=1.0).began
    assert before <= began <= real.monotonic()
    assert Clock(7.0, 1.0).began == 7.0


def test_the_end_is_the_limit_behind_the_beginning_however_late_it_is(time):
    clock = Clock(100.0, 1.5)
    assert clock.end == 190.0
    time.now = 1000.0
    assert clock.end == 190.0


@pytest.mark.parametrize(("now", "left"), [(90.0, 10.0), (100.0, 0.0), (130.0, -30.0)])
def test_the_seconds_left_fall_to_nothing_at_the_deadline_and_below_it_behind(time, now, left):
    time.now = now
    assert seconds_until(100.0) == left


def test_without_a_limit_nothing_ends(time):
    clock = Clock(time.now)
    assert (clock.end, clock.choosing_ends(KNOWN, training=True), clock.training_ends(KNOWN)) == (None, None, None)
    assert seconds_until(None) == math.inf


# Of an original that was lowered in 3 s, judged in 5 s and called in 1 ms: two lowerings are 6 s, four passes over the data
# 20 s, timing 2000 calls 2 s, and peak memory and the layers' times 10 s.
MEASURED = Known(3.0, 5.0, 0.001)


def test_verifying_is_lowering_judging_and_measuring_as_often_as_it_does_each(time):
    assert Clock(time.now).verifying(MEASURED) == 6 + 20 + 2 + 10


def test_of_a_limit_measuring_takes_no_more_than_its_share(time):
    assert Clock(time.now, 1.0).verifying(MEASURED) == 6 + 20 + 9, "15 % of a minute are less than 12 s"
    assert Clock(time.now, 2.0).verifying(MEASURED) == 6 + 20 + 12


def test_training_ends_where_verifying_begins_and_choosing_where_training_does(time):
    clock = Clock(1000.0, 10.0)
    assert clock.training_ends(MEASURED) == 1000 + 600 - 38
    assert clock.choosing_ends(MEASURED, training=False) == 1000 + 600 - 38
    assert clock.choosing_ends(MEASURED, training=True) == 1000 + 600 - 38 - 90, "15 % of ten minutes are for training"


def test_where_verifying_takes_longer_than_the_limit_training_ended_before_it_began(time):
    assert Clock(1000.0, 0.25).training_ends(Known(60.0, 60.0)) < 1000.0


@pytest.mark.parametrize("minutes", [0.5, 1, 10, 600])
@pytest.mark.parametrize("judging", [0.1, 3.0, 30.0])
def test_choosing_and_training_leave_the_time_that_verifying_takes(time, minutes, judging):
    clock, known = Clock(time.now, minutes), Known(2.0, judging)
    choosing, training = clock.choosing_ends(known, training=True), clock.training_ends(known)
    assert choosing < training <= clock.end - 2 * 2.0 - 4 * judging + 1e-6
    assert clock.end - training <= 2 * 2.0 + 4 * judging + 30 + 1e-6, "no more than what it takes where there is time"


@pytest.mark.parametrize("minutes", [1, 2, 10])
def test_most_of_a_limit_may_go_into_choosing_where_verifying_is_quick(time, minutes):
    clock, known = Clock(time.now, minutes), Known(1.0, 1.0, 1e-4)
    assert clock.choosing_ends(known, training=True) >= 0.55 * 60 * minutes
    assert clock.choosing_ends(known, training=False) == clock.training_ends(known), "nothing is kept for no epochs"


def test_slow_judging_takes_its_time_from_training_not_from_the_limit(time):
    slow, quick = (Clock(time.now, 1).training_ends(Known(1.0, seconds)) for seconds in (12.0, 1.0))
    assert slow < 10 and quick > 40


def test_verifying_is_expected_to_time_quick_files_for_less_and_never_for_more_than_it_does(time):
    unknown, quick, slow = (Clock(time.now).verifying(Known(0.0, 1.0, call)) for call in (None, 1e-3, 1.0))
    assert (unknown, quick, slow) == (34.0, 16.0, 34.0)


def test_where_the_original_was_not_judged_comparing_takes_as_long_as_lowering(time):
    assert Clock(time.now).verifying(Known(3.0, 0.0)) == Clock(time.now).verifying(Known(3.0, 3.0))
