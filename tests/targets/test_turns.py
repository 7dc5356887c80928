"""Timing several calls in turns, where each call takes as long as a test says."""

import gc

import pytest

from made_time import Time
from penjing.targets.bench import _turns
from penjing.targets.bench._turns import BURST_SECONDS, LEAST_ROUNDS, in_turns, no_collection


@pytest.fixture
def clock(monkeypatch):
    made = Time()
    monkeypatch.setattr(_turns, "time", made)
    return made


def lasting(clock, seconds, name="", order=None):
    """Returns a call that takes `seconds`, and notes its name."""

    def call():
        clock.sleep(seconds)
        if order is not None:
            order.append(name)

    return call


def test_each_call_s_own_time_is_told(clock):
    found = in_turns({"quick": lasting(clock, 0.001), "slow": lasting(clock, 0.004)}, runs=40, seconds=100.0)
    assert found["quick"] == pytest.approx([0.001] * len(found["quick"]))
    assert found["slow"] == pytest.approx([0.004] * len(found["slow"]))
    assert min(map(len, found.values())) >= 40


def test_all_take_turns_in_alternating_order_and_quick_ones_in_bursts_as_long_as_a_slow_call(clock):
    order = []
    calls = {"a": lasting(clock, BURST_SECONDS / 4.5, "a", order), "b": lasting(clock, BURST_SECONDS, "b", order)}
    found = in_turns(calls, runs=4, seconds=0.0)
    turns = "".join(order[-LEAST_ROUNDS * 7 :])
    assert turns == "aaaaabb" + "bbaaaaa" + "aaaaabb", "one untimed call, and then four timed ones of a and one of b"
    assert (len(found["a"]), len(found["b"])) == (LEAST_ROUNDS * 4, LEAST_ROUNDS)


def test_a_drift_of_the_machine_hits_all_alike(clock):
    def slower_and_slower():
        clock.sleep(1e-3 * (1 + 5 * clock.now))

    found = in_turns({"a": slower_and_slower, "b": slower_and_slower}, runs=100, seconds=100.0)
    means = [sum(times) / len(times) for times in found.values()]
    assert means[0] == pytest.approx(means[1], rel=0.01)


def test_timing_ends_when_its_time_is_over_but_not_before_three_rounds(clock):
    call = lasting(clock, 1.0)
    assert len(in_turns({"slow": call}, runs=1000, seconds=0.0)["slow"]) == LEAST_ROUNDS
    assert len(in_turns({"slow": call}, runs=1000, seconds=20.0)["slow"]) == 10, "an untimed call beside each timed one"


def test_a_call_that_takes_no_time_ends_too(clock, monkeypatch):
    ticking = lambda: clock.sleep(1e-9)  # noqa: E731
    monkeypatch.setattr(_turns, "WARM_UP_SECONDS", 1e-7)
    assert len(in_turns({"nothing": ticking}, runs=50, seconds=1.0)["nothing"]) == 50 * LEAST_ROUNDS


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_meanwhile_and_afterwards_it_is_as_before(enabled):
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError), no_collection():
            assert not gc.isenabled()
            _ = 1 / 0
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
