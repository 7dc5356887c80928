"""How a time limit is shared out, and what is left away where it is short; time is made up here."""

from types import SimpleNamespace

import pytest

from penjing.budget import Budget
from penjing.data import Data
from penjing.run import verification
from penjing.run.baseline import Baseline
from penjing.run.clock import Clock, Known, seconds_until
from penjing.run.verification import FEW, OriginalAndCompressed, verify
from penjing.targets import Latency, Measurement, Parity
from penjing.tasks import TOP_ONE, Classification, Likeness

KNOWN = Known(1.0, 4.0)


class Time:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch):
    made = Time()
    monkeypatch.setattr("penjing.run.clock.time", made)
    monkeypatch.setattr("penjing.run.verification.time", made)
    return made


def test_without_a_limit_nothing_ends(time):
    clock = Clock(time.now)
    assert (clock.end, clock.choosing_ends(KNOWN, training=True), clock.training_ends(KNOWN)) == (None, None, None)
    assert seconds_until(None) == float("inf")


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


@pytest.fixture
def verified(time, monkeypatch):
    """Returns a function that verifies a made-up pair on a made-up runtime, and tells what was measured and how."""
    done = {}

    def evaluate(run, loader, task):
        time.now += 10
        return 0.9

    def likeness(one, other, loader, task, limit=None):
        done["limit"] = limit
        time.now += 20 if limit is None else 1
        return Likeness(0.97, TOP_ONE, 0.3)

    def measure_together(files, *, threads, batch, runs, seconds, memory):
        done.update(seconds=seconds, memory=memory)
        time.now += seconds
        found = Measurement(Latency(1.0, 1.0, 3), 100, 5 if memory else None, None, threads, batch, "runtime")
        return dict.fromkeys(files, found)

    fakes = {
        "session": lambda file, threads: file,
        "evaluate": evaluate,
        "likeness": likeness,
        "measure_together": measure_together,
        "check_parity": lambda *_: Parity(float("nan"), None),
        "integer_macs": lambda *_: 0.5,
        "layers": lambda *_: [{"name": "one"}],
        "_real_inputs": lambda *_: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(verification, name, fake)
    graph = SimpleNamespace(cost=lambda: SimpleNamespace(params=10, macs=10))
    file = SimpleNamespace(target="onnxruntime")

    def run(seconds, task=Classification(), metric=0.9):  # noqa: B008  it has no state
        data = Data(None, None, [1], task)
        deadline = None if seconds is None else time.now + seconds
        original = Baseline(metric, 0.3 if metric else None, 100)
        measured = verify(
            OriginalAndCompressed(graph, file, graph, file),
            data,
            Budget(),
            threads=1,
            batch=1,
            original=original,
            deadline=deadline,
        )
        return done | {"layers": measured["layers"], "measured": measured}

    return run


def test_with_time_everything_is_measured(verified):
    for seconds in (None, 1000):
        done = verified(seconds)
        assert (done["limit"], done["seconds"], done["memory"], len(done["layers"])) == (None, 20.0, True, 1)
        assert done["measured"]["warnings"] == []


def test_where_time_is_short_less_is_measured_beside_the_metric_and_says_so(verified):
    done = verified(15)
    assert (done["limit"], done["seconds"], done["memory"]) == (FEW, 1.0, False)
    assert (
        done["measured"]["compressed"]["metric"] == 0.9 and done["measured"]["compressed"]["peak_memory_bytes"] is None
    )
    assert [f"that of {FEW} samples" in line for line in done["measured"]["warnings"]] == [True]
    assert len(done["layers"]) == 1 and verified(5)["layers"] == []


def test_what_stands_in_for_the_metric_is_measured_in_full(verified):
    assert verified(1, metric=None)["limit"] is None


def test_an_error_that_is_not_a_number_is_no_number_in_the_report(verified):
    assert verified(None)["measured"]["parity"]["max_abs_error"] is None
