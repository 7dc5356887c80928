"""Does what docs/howto/add-a-technique.md says, with the code that stands there."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch

import penjing as pj
from penjing.cli.looking import list_command
from penjing.errors import PenjingError
from penjing.report import words
from penjing.techniques import techniques

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "add-a-technique.md"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def registered(blocks):
    """Runs the page's technique and what it does with it; afterwards the technique is no longer registered."""
    names: dict = {}
    exec(blocks[0][1], names)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr("penjing.planning.candidates.SECONDS", 0.5)
        exec(blocks[1][1], names)
    yield names | {"printed": printed.getvalue()}
    del techniques._entries["low_rank"]


def test_the_planner_takes_the_pages_technique_as_it_says(registered, blocks):
    assert registered["printed"] == blocks[2][1]


def test_what_the_plan_does_is_the_best_approximation_of_that_rank(registered):
    graph, small = registered["graph"], registered["small"]
    for step in registered["plan"]:
        path, rank = step.place.path, step.setting["rank"]
        weight = graph.tensor(f"{path}.weight").detach()
        product = small.tensor(f"{path}.1.weight") @ small.tensor(f"{path}.0.weight")
        missing = torch.linalg.svdvals(weight)[rank:].square().sum().sqrt()  # Eckart & Young, 1936
        torch.testing.assert_close(torch.linalg.norm(weight - product), missing)


def test_its_plan_is_read_from_a_file_and_carried_out_again(registered, tmp_path):
    registered["small"].plan.write(tmp_path / "plan.json")
    again = pj.apply(registered["graph"], tmp_path / "plan.json")
    small = registered["small"]
    assert all(torch.equal(tensor, again.tensor(name)) for name, tensor in small.tensors().items())
    assert words(again.plan[0].to_json()) == "share = 0.5, rank = 46, saves_params = 149184"


def test_it_goes_together_with_pruning_and_quantisation(registered):
    graph, data = registered["graph"], registered["data"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penjing.planning.candidates.SECONDS", 0.5)
        chosen = {"low_rank": {"shares": [0.5]}, "quantize": {}}
        plan = pj.plan(graph, data, budget=pj.Budget(size="0.22x"), techniques=chosen)
    assert {step.technique for step in plan} == {"low_rank", "quantize"}
    small = pj.apply(graph, plan, data, stage="all")
    assert small.cost().params < graph.cost().params
    assert "int8" in {step.after for step in small.plan.of("quantize")}, "some may be faster in floating point here"


def test_it_is_listed_and_refuses_what_it_cannot_do(registered, capsys):
    list_command("techniques", as_json=True)
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["techniques"]}
    assert {"prune", "factorize", "merge", "quantize", "low_rank"} == set(listed) and "2013" in listed["low_rank"][
        "source"
    ]
    with pytest.raises(PenjingError, match="low_rank' can't be had with"):
        pj.plan(registered["graph"], registered["data"], techniques={"low_rank": {"ranks": [3]}})
    elsewhere = [pj.Option(pj.Place("weight", "2"), "low_rank", {"share": 0.5, "rank": 3})]
    with pytest.raises(PenjingError, match="weight '2', which Sequential hasn't"):
        pj.apply(registered["graph"], pj.Plan(tuple(elsewhere)))


def test_a_budget_that_nothing_keeps_is_warned_of_and_one_on_the_metric_refused(registered):
    graph, data = registered["graph"], registered["data"]
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.warns(UserWarning, match="No candidate kept the budget of size 1kB"),
    ):
        patch.setattr("penjing.planning.candidates.SECONDS", 0.1)
        pj.plan(graph, data, budget=pj.Budget(size="1kB"), techniques={"low_rank": {"shares": [0.25]}})
    with pytest.raises(PenjingError, match="drop=… can't be judged here"):
        pj.plan(graph, data, budget=pj.Budget(drop=0.01))
    for choices in ({"prune": {"criterion": "l3"}}, {"quantize": {"weights": "int9000"}}):
        with pytest.raises(PenjingError, match=r"l3|int9000"):
            pj.plan(graph, data, techniques=choices)
