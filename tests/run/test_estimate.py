"""What a run is expected to take and to write; forward passes take as long here as a test says."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from made_time import Time
from penjing.budget import Budget
from penjing.data import Data
from penjing.distillation import Ema, Mean
from penjing.graph import Option, Place, Plan, capture
from penjing.planning import MeasuredPlan
from penjing.run import estimate as module
from penjing.run import stages
from penjing.run.baseline import Baseline
from penjing.run.clock import Known
from penjing.run.delivery import delivered_names
from penjing.run.estimate import Estimate, estimate, known, seconds_of_a_width
from penjing.run.request import CompressRequest
from penjing.run.workspace import Workspace, write_json
from penjing.tasks import Classification
from penjing.training import TrainingSettings

WIDTH = Plan((Option(Place("group", "0"), "prune", {"keep": 8, "amount": 0.5, "round_to": 8}, 16, 8),))
CANDIDATE = MeasuredPlan(WIDTH, 1500, 0.5, 0.1, 5000, True)  # 0.1 ms, half of the original's latency
PRODUCTS = ("report.json", "report.html", "model.penjing", "model.onnx", "run.py", "plan.json")


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path / "out", {"seed": 0})


@pytest.fixture(scope="module")
def graph():
    return capture(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))


@pytest.fixture
def quick(monkeypatch):
    """A forward pass of a batch takes a second."""
    monkeypatch.setattr(module, "_pass", lambda graph, loader, task: 1.0 * len(loader))


BATCHES = [(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))] * 5


def asked(minutes=None, epochs=10, **parts):
    loaders = {"train": BATCHES, "calibration": BATCHES, "validation": BATCHES} | parts
    data = Data(**loaders, task=Classification(3))
    return CompressRequest(data, "l2", training=TrainingSettings(epochs=epochs), max_minutes=minutes)


class Streamed:
    """A loader that doesn't know how many batches it has."""

    def __iter__(self):
        return iter(BATCHES)


# What is written


def test_all_copies_of_the_weights_and_what_stands_beside_them_are_expected_to_be_written(space, graph, quick):
    found = estimate(graph, asked(), space.held())
    weights = 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert found.bytes_written == 11 * weights + 5_000_000
    assert found.files == delivered_names(asked().data, (".onnx",)) and found.out == space.out


def test_a_larger_network_is_expected_to_write_in_proportion(space, graph, quick):
    larger = capture(nn.Sequential(nn.Linear(4, 80), nn.ReLU(), nn.Linear(80, 3)), torch.randn(2, 4))
    one, other = (estimate(each, asked(), space.held()).bytes_written for each in (graph, larger))
    assert other - one == 11 * 4 * ((4 * 80 + 80 + 80 * 3) - (4 * 8 + 8 + 8 * 3))


# How long it takes


def alike():
    """A request whose layers are thinned alike."""
    return replace(asked(), solver="widest_that_fits")


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        ({}, 4 * 10 * 5 / 60),  # a step is three passes forward and back, and one of the teacher
        ({"epochs": 3}, 4 * 3 * 5 / 60),
        ({"epochs": 0}, 0.0),
        ({"train": None, "calibration": BATCHES[:2]}, 4 * 10 * 2 / 60),
        ({"train": Streamed()}, 0.0),
    ],
)
def test_training_takes_four_passes_for_each_step(space, graph, quick, given, minutes):
    assert estimate(graph, asked(**given), space.held()).minutes_train == pytest.approx(minutes)


def test_other_teachers_take_as_long_as_their_macs_say(space, graph, quick):
    usual = asked()
    wide = capture(nn.Sequential(nn.Linear(4, 80), nn.ReLU(), nn.Linear(80, 3)), torch.randn(2, 4))
    other = replace(usual, teacher=Mean(wide, nn.Linear(4, 3)))
    ratio = wide.cost().macs / graph.cost().macs
    assert ratio > 2
    minutes = [estimate(graph, request, space.held()).minutes_train for request in (usual, other)]
    assert minutes[1] == pytest.approx(minutes[0] * (3 + ratio + 1) / 4)
    alone = replace(usual, teacher=Ema())
    assert estimate(graph, alone, space.held()).minutes_train == pytest.approx(minutes[0])


def test_before_anything_was_measured_eight_widths_take_what_their_size_makes_likely(space, graph, quick):
    a_width = 2 * len(graph.cost().rows) * module.EXPORT_SECONDS_PER_NODE + module.MEASURE_SECONDS
    assert estimate(graph, alike(), space.held()).minutes_choose == pytest.approx(8 * a_width / 60)


@pytest.mark.parametrize(("budget", "table"), [(Budget(latency="0.5x"), True), (Budget(size="0.5x"), False)])
def test_a_choice_place_by_place_takes_losses_plans_and_kernels_that_are_new(
    space, graph, quick, budget, table, monkeypatch, tmp_path
):
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    rows = len(graph.cost().rows)
    plans = 4 * (2 * rows * module.EXPORT_SECONDS_PER_NODE + module.MEASURE_SECONDS)
    losses = 2.5 * 2 * (256 * module._sample(graph, asked()) + 0.002 * rows)
    kernels = 2 * 12 * 0.3  # of two layers that differ
    request = replace(asked(), budget=budget)
    assert module._sample(graph, request) > 0
    assert estimate(graph, request, space.held()).minutes_choose == pytest.approx(
        (plans + losses + table * kernels) / 60
    )
    (tmp_path / "latency.sqlite").touch()
    assert estimate(graph, request, space.held()).minutes_choose == pytest.approx((plans + losses) / 60)


def test_where_nothing_has_to_go_one_plan_is_measured(space, graph, quick):
    a_plan = 2 * len(graph.cost().rows) * module.EXPORT_SECONDS_PER_NODE + module.MEASURE_SECONDS
    for request in (replace(asked(), budget=Budget(drop=0.01)), replace(asked(), techniques=("quantize",))):
        assert estimate(graph, request, space.held()).minutes_choose == pytest.approx(a_plan / 60)


@pytest.mark.parametrize(("measured", "left"), [(1, 7), (7, 1), (8, 1), (12, 1)])
def test_widths_that_were_measured_are_not_expected_again_but_one_more_may_always_come(
    space, graph, quick, measured, left
):
    space.seconds["choose"] = 6.0 * measured
    write_json([[CANDIDATE.to_json()]] * measured, space.inner / stages.CANDIDATES)
    assert seconds_of_a_width(space.held()) == 6.0
    assert estimate(graph, alike(), space.held()).minutes_choose == pytest.approx(6 * left / 60)


def test_of_a_finished_run_nothing_is_left(space, graph, quick):
    for file in (stages.FINISHED, *(f"../{name}" for name in PRODUCTS)):
        (space.inner / file).touch()
    found = estimate(graph, asked(), space.held())
    assert (found.minutes_choose, found.minutes_train, found.minutes_verify, found.minutes) == (0, 0, 0, 0)
    assert str(found).startswith("Nothing is left to do.\nFinished already in") and "report" in found.finished


def test_a_limit_bounds_the_whole_and_leaves_its_parts_as_they_were_expected(space, graph, quick):
    free, bound = (estimate(graph, asked(minutes), space.held()) for minutes in (None, 1.0))
    assert bound.minutes == 1.0 < free.minutes
    assert (bound.minutes_choose, bound.minutes_train) == (free.minutes_choose, free.minutes_train)
    assert free.minutes == free.minutes_choose + free.minutes_train + free.minutes_verify


def test_a_limit_above_what_is_expected_changes_nothing(space, graph, quick):
    free, bound = (estimate(graph, asked(minutes), space.held()) for minutes in (None, 1000.0))
    assert bound.minutes == free.minutes


def test_of_a_forward_pass_the_quickest_of_three_counts_for_each_batch(space, graph, monkeypatch):
    time, passes = Time(), iter([5.0, 2.0, 3.0])
    monkeypatch.setattr(module, "time", time)
    run = lambda x: time.sleep(next(passes))  # noqa: E731
    assert module._pass(run, BATCHES, Classification(3)) == 2.0 * len(BATCHES)


@pytest.mark.parametrize("loader", [None, [], Streamed()])
def test_no_pass_is_made_over_what_has_no_length(graph, loader):
    assert module._pass(None, loader, Classification(3)) == 0.0


# What is known of the original


def test_what_is_known_of_the_original_is_read_from_what_earlier_calls_measured(space):
    assert known(space.held()) == Known(0.0, 0.0, None)
    space.seconds["profile"] = 7.0
    write_json(Baseline(0.9, 0.3, 20, 5.0).to_dict(), space.inner / stages.BASELINE)
    assert known(space.held()) == Known(2.0, 5.0, None)
    write_json([[CANDIDATE.to_json()]], space.inner / stages.CANDIDATES)
    assert known(space.held()).call == pytest.approx(0.2e-3), "the original takes twice as long as the candidate"


def test_lowering_took_no_less_than_nothing(space):
    space.seconds["profile"] = 1.0
    write_json(Baseline(0.9, 0.3, 20, 5.0).to_dict(), space.inner / stages.BASELINE)
    assert known(space.held()).lowering == 0.0


@pytest.mark.parametrize("content", ["", "[[]]", "[7]", '{"a": 1}'])
def test_from_a_journal_that_is_damaged_nothing_is_known(space, graph, quick, content):
    space.seconds["choose"] = 30.0
    (space.inner / stages.CANDIDATES).write_text(content)
    assert known(space.held()).call is None
    assert seconds_of_a_width(space.held()) in (0.0, 30.0)
    assert estimate(graph, asked(), space.held()).minutes_choose > 0


def test_what_will_be_made_again_is_not_known(space):
    space.seconds["profile"] = 7.0
    write_json(Baseline(0.9, 0.3, 20, 5.0).to_dict(), space.inner / stages.BASELINE)
    assert known(replace(space.held(), without=(stages.BASELINE,))) == Known(0.0, 0.0, None)


# In words


def told(tmp_path, limit=None, finished=()):
    return str(Estimate(2.0, 1.0, 1.0, limit, tmp_path, ("model.onnx", "report.json"), 12_400_000, finished))


def test_an_estimate_tells_time_room_and_files(tmp_path):
    assert told(tmp_path).splitlines() == [
        "This will take about 4 min (2 min to measure candidates, 1 min to train, 1 min to verify).",
        f"It will write up to 12 MB to {tmp_path}/: model.onnx, report.json, and .penjing/ to go on from.",
    ]


def test_an_estimate_tells_the_limit_and_what_is_finished(tmp_path):
    lines = told(tmp_path, 2.0, ("capture", "profile")).splitlines()
    assert lines[0].endswith(", shortened to end within 2 min where it can be).")
    assert lines[-1] == f"Finished already in {tmp_path}: capture, profile."
