"""The report of a run, put together from what its stages gave."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from penjing import report
from penjing.budget import Budget
from penjing.data import Data, Split
from penjing.graph import Plan, capture
from penjing.planning import Deployment, MeasuredPlan
from penjing.pruning import prune
from penjing.run import stages
from penjing.run.assemble_report import _notes, assemble_report
from penjing.run.request import CompressRequest
from penjing.run.workspace import Workspace
from penjing.targets import lower
from penjing.tasks import Unlabelled
from report.report_samples import report as sample

MEASURED = ("target", "baseline", "compressed", "ratios", "parity", "integer_macs", "layers", "met")


@pytest.mark.parametrize(("granularity", "zeros"), [("element", 256), ("filter", 0)])
def test_the_report_counts_the_zeros_that_pruning_left(granularity, zeros, tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(2, 16))
    small = prune(graph, 0.5, granularity=granularity, include=["0"])
    space = Workspace(tmp_path, {"include": [], "exclude": [], "data": "", "model": ""}, lambda line: None)
    space.inner.mkdir(parents=True, exist_ok=True)
    lower(graph, path=space.inner / stages.lowered(".onnx"))
    lower(small, path=space.out / "model.onnx")
    made = sample()
    content = assemble_report(
        space,
        CompressRequest(Data(None, [(torch.randn(2, 16),)], None, Unlabelled()), "l2", Budget(latency="0.5x")),
        small,
        solution=SimpleNamespace(
            measured=(),
            places=(),
            plan=(),
            complete=True,
            short_of_time=False,
            unseen=0,
            taken=SimpleNamespace(meets=True, round_to=1, integer=False),
        ),  # type: ignore[arg-type]
        recovery=SimpleNamespace(notes=[], details=("a detail",), epochs=(), variant=None, short_of_time=False),  # type: ignore[arg-type]
        measured={key: made[key] for key in MEASURED} | {"missed": [], "warnings": []},
        inputs={},
        clock=SimpleNamespace(end=None, minutes=None),  # type: ignore[arg-type]
    )
    assert content["zeros"]["zeros"] == zeros and content["zeros"]["faster"] == 0
    assert (content["zeros"]["deflated_bytes"] is None) == (zeros == 0)
    page = report.write(content, tmp_path).read_text(encoding="utf-8")
    assert ('id="zeros"' in page) == (zeros > 0)
    assert page.index("<li>a detail</li>") > page.index('id="environment"'), "what training told is no headline"


# What the notes say beside the numbers

PARITY = {"agreement_with_original": 0.97, "agreement_measure": "top-1"}
USUAL = {
    "recovery": {"notes": (), "short_of_time": False, "steps": 8, "wanted": 8},
    "solution": {
        "complete": True,
        "short_of_time": False,
        "unseen": 0,
        "measured": (),
        "plan": (1,),
        "taken": None,
        "meets": True,
    },
    "measured": {
        "missed": [],
        "warnings": [],
        "baseline": {"metric": 0.9, "size_bytes": 1000, "latency_ms": {"median": 2.0}, "macs": 100},
        "compressed": {"metric": 0.8},
        "parity": PARITY,
    },
    "asked": {
        "budget": Budget(size="0.5x"),
        "trained": True,
        "deployment": Deployment("onnxruntime"),
        "untrained_teachers": (),
        "techniques": ("prune", "quantize"),
        "data": Data([()], None, None, Unlabelled()),
    },
    "clock": {"end": None, "minutes": None},
}


def notes(**changes):
    """Returns the notes of a run in which all went well, but for `changes` of single values by their owner."""
    given = {owner: values | changes.get(owner, {}) for owner, values in USUAL.items()}
    solution = SimpleNamespace(**given["solution"])
    solution.taken = MeasuredPlan(Plan(), 1, 0.4, 0.8, 900, solution.meets, counted={"macs": 60})
    asked, recovery, clock = (SimpleNamespace(**given[owner]) for owner in ("asked", "recovery", "clock"))
    return _notes(asked, solution, recovery, given["measured"], clock)


def test_of_a_run_in_which_all_went_well_there_is_nothing_to_note():
    assert notes() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recovery": {"notes": ("Training was interrupted.",)}}, "Training was interrupted."),
        ({"solution": {"complete": False}}, "Measuring candidates was interrupted; the same command goes on with it."),
        ({"measured": {"missed": ["size", "drop"]}}, "The budget was not met: size; drop."),
        ({"measured": {"warnings": ["The time was short."]}}, "The time was short."),
        (
            {"solution": {"meets": False}},
            "No candidate kept the budget of size 0.5x; the one that came nearest was taken. What binds is size: 900 bytes where "
            "500 bytes is allowed, 80% more.",
        ),
        (
            {"solution": {"plan": ()}},
            "Float is already the fastest within your budget: nothing was pruned or quantised.",
        ),
        ({"asked": {"deployment": Deployment("torch")}}, "Nothing was quantised: torch computes nothing in integers."),
    ],
)
def test_what_a_user_should_know_of_a_run_is_noted(changes, says):
    assert notes(**changes) == [says]


def candidate(latency, size, macs=70):
    ms = None if latency is None else 2 * latency
    return MeasuredPlan(Plan(), 1, latency, ms, size, False, counted={"macs": macs})


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (
            Budget(latency="0.1x"),
            " What binds is latency: 0.8 ms where 0.2 ms is allowed, 300% more."
            " The fastest candidate measured took 0.31× the latency of the original (0.62 ms).",
        ),
        (
            Budget(latency="0.41x"),
            " What binds is latency: 0.8 ms where 0.82 ms is allowed, less than 5% below, which a finished model may pass."
            " The fastest candidate measured took 0.31× the latency of the original (0.62 ms).",
        ),
        (
            Budget(size="0.1x"),
            " What binds is size: 900 bytes where 100 bytes is allowed, 800% more."
            " The smallest candidate measured had 0.20× the size of the original (200 bytes).",
        ),
        (
            Budget(latency="0.3x", macs="0.2x"),
            " What binds is the number of MACs: 60 where 20 is allowed, 200% more."
            " The fastest candidate measured took 0.31× the latency of the original (0.62 ms)."
            " At the least, the number of MACs of a candidate was 0.55× the original's (55).",
        ),
        (Budget(drop=0.1), ""),
    ],
)
def test_where_no_candidate_kept_the_budget_it_is_said_what_was_possible(budget, says):
    found = (candidate(0.31, 300), candidate(None, 200), candidate(0.5, 250, macs=55))
    (note,) = notes(solution={"meets": False, "measured": found}, asked={"budget": budget})
    assert note == f"No candidate kept the budget of {budget}; the one that came nearest was taken.{says}"


@pytest.mark.parametrize(
    ("steps", "drop", "short_of_time", "told"),
    [
        (30, 0.05, False, True),
        (200, 0.05, False, False),
        (30, 0.1, False, False),
        (0, 0.05, False, False),
        (30, 0.05, True, False),
    ],
)
def test_that_training_was_short_is_said_where_the_metric_fell_too_far(steps, drop, short_of_time, told):
    recovery = {"steps": steps, "wanted": 300, "short_of_time": short_of_time}
    said = notes(recovery=recovery, asked={"budget": Budget(drop=drop)}, measured={"missed": ["the fall"]})
    assert (
        "The budget was not met: the fall. Training had only 30 steps: with more epochs (--epochs)" in said[0]
    ) == told
    assert said[0].startswith("The budget was not met: the fall.")


def test_notes_begin_with_what_a_reader_must_know():
    said = notes(
        recovery={"notes": ("Training was interrupted.",)}, measured={"missed": ["size"], "warnings": ["A warning."]},
        solution={"meets": False}, asked={"untrained_teachers": ("net.py:one",), "budget": Budget(size="0.1x")},
    )  # fmt: skip
    assert [line[:11] for line in said] == ["The budget ", "No candidat", "Training wa", "The teacher", "A warning."]


@pytest.mark.parametrize("held_out", [True, False])
def test_that_the_original_may_know_the_images_for_judging_is_noted_where_they_were_held_out(held_out):
    data = Data([()], None, None, Unlabelled(), split=Split(81, 3, 9, 3, held_out))
    said = notes(asked={"data": data})
    assert [line.startswith("81 images of 3 classes to train on, 9 images") for line in said] == [True] * held_out


def test_teachers_that_may_have_random_weights_are_named():
    said = notes(asked={"untrained_teachers": ("net.py:one", "net.py:other")})
    assert [line.split(" was given no weights")[0] for line in said] == [
        "The teacher net.py:one",
        "The teacher net.py:other",
    ]


@pytest.mark.parametrize("trained", [True, False])
def test_without_a_metric_it_is_noted_what_stands_in_for_it_and_whether_that_means_anything(trained):
    said = notes(measured={"baseline": {"metric": None}}, asked={"trained": trained})
    assert said[0] == (
        "Without labels, agreement with the original stands in for the metric: top-1, which is 0.9700."
    )  # fmt: skip
    assert [line.startswith("No weights were given") for line in said[1:]] == ([] if trained else [True])
