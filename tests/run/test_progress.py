"""Where a run is: its stage, the time that is left, the best plan so far."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from penjing.budget import Budget
from penjing.graph import Option, Place, Plan
from penjing.planning import MeasuredPlan, better
from penjing.run import progress
from penjing.run.clock import Clock
from penjing.run.estimate import Estimate
from penjing.run.progress import STAGES, Course


@pytest.fixture
def now(monkeypatch):
    """The time, which tests set."""
    time = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: time.seconds)
    return time


def course(told, minutes=(4.0, 2.0, 1.0), clock=None, notes=None):
    expected = Estimate(*minutes, None, Path("out"), (), 0, ())
    return Course(expected, clock or Clock(0.0), told.append, [].append if notes is None else notes.append)


def test_the_time_left_is_estimated_anew_with_each_part_of_the_run(now):
    told = []
    its = course(told)
    its.began("capture")
    now.seconds += 100
    its.began("choose")
    assert [one.ends for one in told] == [1000 + 7 * 60] * 2  # it runs on within a part
    now.seconds += 10
    its.began("recover")
    its.began("lower")
    assert [one.ends for one in told[2:]] == [1110 + 3 * 60, 1110 + 60]
    its.began("prune")  # another plan is chosen and trained
    assert told[-1].ends == 1110 + 3 * 60
    assert [one.after for one in told] == [180, 180, 60, 0, 60]


def test_the_pace_of_the_training_tells_when_it_ends(now):
    told = []
    its = course(told)
    its.began("recover")
    its.trained(50, 100, 1.0)  # an earlier call made the first half
    now.seconds += 20
    its.trained(60, 100, 0.5)
    assert (told[-1].step, told[-1].steps, told[-1].loss) == (60, 100, 0.5)
    assert told[-1].ends == pytest.approx(1020 + 40 * 2 + 60)
    its.began("quantise")
    assert told[-1].steps == 0


def test_no_run_is_expected_to_end_behind_its_limit(now):
    told = []
    its = course(told, clock=Clock(1000.0, 1.0))
    its.began("recover")
    its.trained(0, 100, 1.0)
    now.seconds += 50
    its.trained(1, 100, 1.0)
    assert [one.ends for one in told] == [1060.0] * 3


def test_stages_are_noted():
    notes = []
    its = course([], notes=notes)
    for stage in STAGES:
        its.began(stage)
    assert notes == [f"Stage: {stage}." for stage in STAGES]


def plan(latency, meets, damage=None, size=100):
    found = {} if damage is None else {"damage": damage}
    option = Option(Place("group", f"a{latency}"), "prune", {"keep": 4}, 8, 4, found)
    return MeasuredPlan(Plan((option,)), 9, latency, latency, size, meets)


class Limited:
    """A problem that limits the latency to half of the original's."""

    def used(self, candidate):
        return Budget(latency="0.5x").used({"latency": 1.0}, {"latency": candidate.latency})

    @staticmethod
    def allowed(name):
        return 0.95


@pytest.mark.parametrize(
    ("worse", "best"),
    [
        (plan(0.7, False), plan(0.6, False)),
        (plan(0.6, False), plan(0.45, True)),
        (plan(0.4, True), plan(0.3, True)),
        (plan(0.3, True, 0.2), plan(0.45, True, 0.1)),
        (plan(0.3, True), plan(0.45, True, 0.1)),
    ],
)
def test_the_best_plan_keeps_the_budget_and_does_the_least_damage(worse, best):
    assert better(Limited(), worse, best) == best == better(Limited(), best, worse)


def test_the_best_of_all_plans_is_told_and_begins_anew_with_corrected_prices():
    told = []
    its = course(told)
    its.measured(Limited(), plan(0.45, True, 0.1))
    its.measured(Limited(), plan(0.6, False))
    assert told[-1].best == plan(0.45, True, 0.1)
    its.chooses(Limited(), [plan(0.45, False, 0.1)])
    assert told[-1].best == plan(0.45, False, 0.1)
