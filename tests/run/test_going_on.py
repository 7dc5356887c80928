"""Coming back to a run: what more time changes, what is still to come, and how long that takes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from penjing.data import Data
from penjing.graph import Option, Place, Plan, capture
from penjing.planning import MeasuredPlan, Solution
from penjing.run import estimate as module
from penjing.run import recovery, stages
from penjing.run.assemble_report import _cut_short
from penjing.run.baseline import Baseline
from penjing.run.estimate import Estimate, durations, estimate, what_follows
from penjing.run.recovery import Recovery, recovered
from penjing.run.request import CompressRequest
from penjing.run.workspace import Workspace, write_json
from penjing.tasks import Classification
from penjing.training import TrainingSettings

WIDTH = Plan((Option(Place("group", "0"), "prune", {"keep": 8, "amount": 0.5, "round_to": 8}, 16, 8),))
TAKEN = MeasuredPlan(WIDTH, 1500, 0.5, 0.1, 5000, True)


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path / "out", {"seed": 0})


@pytest.fixture(scope="module")
def graph():
    return capture(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))


def asked(minutes=None, epochs=10, batches=5):
    loader = [(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))] * batches
    data = Data(loader, loader, loader, Classification(3))
    training = TrainingSettings(epochs=epochs, precision="float32", channels_last=False)
    return CompressRequest(data, "l2", training=training, max_minutes=minutes)


@pytest.mark.parametrize(("more", "made_again"), [(None, True), (2.0, True), (1.0, False), (0.5, False)])
def test_what_was_cut_short_is_made_again_only_in_more_time(space, more, made_again):
    stages.note_cut(space, 1.0, [stages.CHOICE], True)
    stages.note_cut(space, 1.0, [stages.RECOVERED], False)
    assert stages.outlived(space.held(), more) == ((stages.CHOICE,) if made_again else ())


def test_what_came_out_as_it_should_needs_no_more_time(space):
    stages.note_cut(space, 1.0, [stages.CHOICE, stages.RECOVERED], True)
    stages.note_cut(space, 3.0, [stages.CHOICE], False)
    assert stages.outlived(space.held(), None) == (stages.RECOVERED,)
    stages.note_cut(space, None, [stages.RECOVERED], True)
    assert stages.outlived(space.held(), None) == ()


@pytest.mark.parametrize("content", ["", "[]", '{"choice.json": "soon"}'])
def test_a_damaged_note_of_what_was_cut_drops_nothing(space, content):
    (space.inner / stages.CUT).write_text(content)
    assert stages.outlived(space.held(), None) == ()


def fill(space, *files):
    for file in files:
        (space.inner / file).touch()


def standing(monkeypatch, step, total):
    for where in (module, recovery):
        monkeypatch.setattr(where, "steps_of", lambda path: (step, total))


def seconds_of(monkeypatch, batch=1.0):
    """A forward pass of a batch takes that long."""
    monkeypatch.setattr(module, "_pass", lambda graph, loader, task: batch * len(loader))


def test_the_estimate_of_a_training_counts_the_steps_that_are_left_of_the_shortened_one(space, graph, monkeypatch):
    seconds_of(monkeypatch)
    fresh = estimate(graph, asked(), space.held())
    assert fresh.minutes_train == pytest.approx(4 * 50 / 60)
    fill(space, "original.penjing", "original.onnx", stages.BASELINE, stages.CHOICE, stages.CHECKPOINT)
    standing(monkeypatch, 15, 20)
    assert estimate(graph, asked(), space.held()).minutes_train == pytest.approx(4 * 5 / 60)


def test_the_estimate_goes_by_what_earlier_calls_took(space, graph, monkeypatch):
    seconds_of(monkeypatch)
    space.seconds.update(choose=300.0, profile=7.0)
    write_json([[TAKEN.to_json()], [TAKEN.to_json()]], space.inner / stages.CANDIDATES)
    write_json(Baseline(0.9, 0.3, 20, 5.0).to_dict(), space.inner / stages.BASELINE)
    found = estimate(graph, replace(asked(), solver="widest_that_fits"), space.held())
    assert found.minutes_choose == pytest.approx(150 * 6 / 60)
    assert found.minutes_verify == pytest.approx((2 * 2 + 4 * 5 + 2000 * 0.0002 + 10) / 60)


def test_nothing_is_trained_where_nothing_goes(space, graph, monkeypatch):
    seconds_of(monkeypatch)
    whole = MeasuredPlan(Plan(), 1500, 0.5, 0.1, 5000, True)
    write_json(Solution(whole, (whole,)).to_json(), space.inner / stages.CHOICE)
    fill(space, "original.penjing", "original.onnx", stages.BASELINE)
    assert estimate(graph, asked(), space.held()).minutes_train == 0


def test_after_ctrl_c_it_says_what_follows_and_how_long_that_takes(space, graph, monkeypatch):
    seconds_of(monkeypatch, 1.5)
    assert what_follows(graph, asked(), space.held(), training=True).startswith(
        "Still to come: training (5 min), writing and verifying the file (1 min). Ctrl-C again stops"
    )
    assert "training" not in what_follows(graph, asked(epochs=0), space.held(), training=True)


def test_a_new_run_and_one_begun_expect_the_same_of_verifying_where_nothing_was_measured(space, graph, monkeypatch):
    seconds_of(monkeypatch)
    fresh = estimate(graph, asked(), space.held()).minutes_verify
    space.seconds.update(capture=1.0, choose=9.0, verify=99.0)
    assert estimate(graph, asked(), space.held()).minutes_verify == fresh == pytest.approx((4 * 5 + 30) / 60, rel=0.01)
    fill(space, stages.BASELINE)
    space.seconds["profile"] = 500.0
    assert estimate(graph, asked(), space.held()).minutes_verify == fresh, "a damaged measurement tells nothing"


@pytest.mark.parametrize("unfinished", ["cut short", "interrupted"])
def test_what_builds_on_a_choice_that_is_made_again_is_neither_finished_nor_free(space, graph, monkeypatch, unfinished):
    seconds_of(monkeypatch)
    standing(monkeypatch, 45, 50)
    fill(
        space, "original.penjing", "original.onnx", stages.BASELINE, stages.PRUNED, stages.RECOVERED, stages.CHECKPOINT
    )
    held = space.held()
    if unfinished == "cut short":
        write_json(Solution(TAKEN, (TAKEN,)).to_json(), space.inner / stages.CHOICE)
        assert estimate(graph, asked(), held).finished == ("capture", "profile", "choose", "prune", "recover")
        held = replace(held, without=(stages.CHOICE,))
    found = estimate(graph, asked(), held)
    assert found.finished == ("capture", "profile")
    assert found.minutes_choose > 0 and found.minutes_train == pytest.approx(4 * 50 / 60)


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        ((0.0, 0.02, 0.5), ("about 30 s", ["nothing", "a few seconds", "30 s"])),
        ((0.0, 0.0, 0.03), ("a few seconds", ["nothing", "nothing", "a few seconds"])),
        ((1.5, 0.2, 0.9), ("about 2 min 40 s", ["1 min 30 s", "10 s", "1 min"])),
        ((8.0, 30.2, 0.2), ("about 38 min", ["8 min", "30 min", "under a minute"])),
        ((0.0, 0.0, 0.0), ("nothing", ["nothing"] * 3)),
    ],
)
def test_the_parts_of_a_time_add_up_to_the_whole(minutes, said):
    assert durations(minutes) == said


@pytest.mark.parametrize("limit", [1.0, 2.0, None])
def test_no_part_of_an_estimate_exceeds_its_whole(tmp_path, limit):
    line = str(Estimate(2.0, 1.0, 1.0, limit, tmp_path, (), 0, ())).splitlines()[0]
    expected = {
        1.0: "about 1 min (30 s to measure candidates, 10 s to train, 20 s to verify,",
        2.0: "about 2 min (1 min to measure candidates, 30 s to train, 30 s to verify,",
        None: "about 4 min (2 min to measure candidates, 1 min to train, 1 min to verify)",
    }
    assert line.startswith(f"This will take {expected[limit]}")


@pytest.fixture
def train(space, graph, monkeypatch):
    """Returns a function that recovers under a limit, where training does `steps` of the 50; it tells how often it ran."""
    runs = []

    def train(small, *_):
        runs.append((space.inner / stages.CHECKPOINT).exists())
        (space.inner / stages.CHECKPOINT).touch()
        return small

    monkeypatch.setattr(recovery, "train", train)
    monkeypatch.setattr(recovery, "_judged", lambda *_: 0.5)
    monkeypatch.setattr(recovery, "discard_damaged", lambda *_: None)  # the made-up one is empty

    def run(minutes, steps, deadline=float("inf")):
        standing(monkeypatch, steps, steps)
        made = recovered(space, asked(minutes), graph, graph, pruned=True, deadline=None if minutes is None else deadline,
                         progress=False, say=lambda line: None)  # fmt: skip
        return made, runs

    return run


def test_a_shortened_training_begins_anew_once_there_is_more_time(train, space):
    made, runs = train(1.0, 20)
    assert made.short_of_time and stages.outlived(space.held(), 2.0) == recovery.MADE
    train(1.0, 20)
    assert runs == [False, True], "in the same time it is gone on with"
    made, runs = train(2.0, 20)
    assert runs[-1] is False and made.short_of_time and stages.outlived(space.held(), 2.0) == ()
    made, runs = train(None, 50)
    assert not made.short_of_time and stages.outlived(space.held(), None) == ()


def test_where_there_is_no_time_nothing_is_trained_and_that_is_noted(train, space):
    made, runs = train(0.001, 0, deadline=0.0)
    assert made.short_of_time and runs == [] and "no training" in made.notes[0]
    assert stages.RECOVERED in stages.outlived(space.held(), 1.0)


def test_how_training_went_is_read_as_it_was_written(graph, tmp_path):
    Recovery(graph, ("a note",), None, True, True).save(tmp_path / stages.RECOVERED)
    assert Recovery.load(tmp_path / stages.RECOVERED).short_of_time


@pytest.mark.parametrize(("choice", "training"), [(True, False), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("missed", [["size"], []])
def test_it_is_told_when_time_was_why_a_budget_was_missed(choice, training, missed):
    told = _cut_short(
        Solution(TAKEN, (TAKEN,), short_of_time=choice), Recovery(None, short_of_time=training), {"missed": missed},
        SimpleNamespace(minutes=1.5),
    )  # fmt: skip
    assert len(told) == (choice or training)
    for line in told:
        assert line.startswith("The limit of 1.5 min cut this run short") and "goes on from there" in line
        assert ("may be why the budget was not met" in line) == bool(missed)
        assert ("only 1 were measured" in line) == choice and ("training was left out" in line) == training


def test_it_is_told_that_options_were_not_weighed():
    (line,) = _cut_short(
        Solution(TAKEN, (TAKEN,), unseen=3), Recovery(None), {"missed": []}, SimpleNamespace(minutes=1.0)
    )
    assert "3 options were not weighed, so that a better plan may have been missed" in line
